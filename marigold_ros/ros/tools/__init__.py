"""Command-line tools that talk to live topics."""
