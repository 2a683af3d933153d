"""Step policies, replayed on evaluated frames or run live."""
