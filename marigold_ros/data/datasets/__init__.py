"""Data sets to train and evaluate on, one a file."""
