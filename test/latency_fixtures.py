"""Short measurements of what a frame costs, for tests in which `evaluate` runs."""

from __future__ import annotations

import pytest

from marigold_ros.evaluation.policies import latency


@pytest.fixture(scope='session', autouse=True)
def few_latency_samples():
    """Measure the cost of a frame only a few times, as no test judges it."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(latency, 'SAMPLES', latency.MIN_SAMPLES)
        yield
