"""Timing method and benchmarks: every speed claim is a ratio measured in one run."""
