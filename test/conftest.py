"""Settings of all tests."""

import atexit
import os
from shutil import rmtree
from tempfile import mkdtemp

# Set before torch is imported: its threads busy-wait for each other, so that next to another busy
# process a test file of 10 s takes minutes.  With two cores the node also uses one thread.
os.environ.setdefault('OMP_NUM_THREADS', '1')
# No test uses what an earlier run compiled, nor writes to the user's cache.
os.environ['XDG_CACHE_HOME'] = mkdtemp(prefix='marigold_ros_test_cache_')
atexit.register(rmtree, os.environ['XDG_CACHE_HOME'], ignore_errors=True)
