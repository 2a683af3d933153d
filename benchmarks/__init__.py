"""Timing method and benchmarks of the engine, the policies and the cap."""
