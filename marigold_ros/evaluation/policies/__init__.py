"""Step policies replayed on recorded frames, and live."""
