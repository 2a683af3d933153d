"""The renderer of the places that training sees; not installed."""
