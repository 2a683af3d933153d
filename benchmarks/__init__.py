"""One question a file, with the method and the figures; not installed."""
