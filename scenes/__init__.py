"""Render synthetic scenes for training and tests; not installed with the package."""
