"""Settings of all tests."""

import atexit
import io
import os
from shutil import rmtree
from tempfile import mkdtemp

import pytest
from tqdm import tqdm

# Set before torch is imported: its threads busy-wait for each other, so that next to another busy
# process a test file of 10 s takes minutes.  With two cores the node also uses one thread.
os.environ.setdefault('OMP_NUM_THREADS', '1')
NICENESS = 10
# No test uses what an earlier run compiled, nor writes to the user's cache.
os.environ['XDG_CACHE_HOME'] = mkdtemp(prefix='marigold_ros_test_cache_')
atexit.register(rmtree, os.environ['XDG_CACHE_HOME'], ignore_errors=True)


def is_of_a_node(item):
    """Tell whether a test needs a core in time."""
    return item.get_closest_marker('node') is not None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Run the tests of nodes first and one after another, and those of a file in one worker."""
    items.sort(key=lambda item: not is_of_a_node(item))
    for item in items:
        item.add_marker(pytest.mark.xdist_group(
            'nodes' if is_of_a_node(item) else str(item.path)))


def pytest_runtest_setup(item):
    """Let other tests make way for those of nodes."""
    if 'PYTEST_XDIST_WORKER' in os.environ and not is_of_a_node(item) and not os.nice(0):
        os.nice(NICENESS)


@pytest.fixture
def bars(monkeypatch):
    """Show every progress bar; return how to find what each has reached at last, of how much."""
    shown = []

    def show(*arguments, **options):
        shown.append(tqdm(*arguments, **{**options, 'disable': False, 'file': io.StringIO()}))
        return shown[-1]

    monkeypatch.setattr('marigold_ros.progress.tqdm', show)
    return lambda: {bar.desc: (bar.n, bar.total) for bar in shown}
