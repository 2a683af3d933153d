"""Settings of all tests."""

import os

# Set before torch is imported: its threads busy-wait for each other, so that next to another busy
# process a test file of 10 s takes minutes.  With two cores the node also uses one thread.
os.environ.setdefault('OMP_NUM_THREADS', '1')
