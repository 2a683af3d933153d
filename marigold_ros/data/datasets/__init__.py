"""Data sets for training and evaluation, one module each."""
