"""What holds for every test."""

import os

# Before torch is imported: its threads wait for each other by spinning, so that beside one busy
# process a file of 10 s takes minutes.  On two cores the node uses one thread too.
os.environ.setdefault('OMP_NUM_THREADS', '1')
