"""The scale sources that measure, one kind a file."""
