"""Where metres come from, one source a file."""
