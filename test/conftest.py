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
# No test uses what an earlier run compiled, nor writes to the user's cache.
os.environ['XDG_CACHE_HOME'] = mkdtemp(prefix='marigold_ros_test_cache_')
atexit.register(rmtree, os.environ['XDG_CACHE_HOME'], ignore_errors=True)


@pytest.fixture
def bars(monkeypatch):
    """Show every progress bar; return how to find what each has reached at last, of how much."""
    shown = []

    def show(*arguments, **options):
        shown.append(tqdm(*arguments, **{**options, 'disable': False, 'file': io.StringIO()}))
        return shown[-1]

    monkeypatch.setattr('marigold_ros.progress.tqdm', show)
    return lambda: {bar.desc: (bar.n, bar.total) for bar in shown}
