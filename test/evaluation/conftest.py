"""Settings of the tests of `evaluate`."""

from latency_fixtures import few_latency_samples

__all__ = ['few_latency_samples']
