"""Freed memory is reused until it is returned to the system."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource
import sys
import numpy as np
from marigold_ros.ros.memory import keep_freed_memory, return_freed_memory
from benchmarks.node_rig import memory_bytes
import os
if sys.argv[1] == 'keep':
    keep_freed_memory()
def use():
    arrays = [np.ones(2_000_000, np.uint8) for _ in range(20)]
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
kept = memory_bytes(os.getpid())
return_freed_memory()
print(kept - memory_bytes(os.getpid()))
"""


def run(mode: str) -> list[int]:
    """Allocate 40 MB ten times; return the page faults, and the bytes returned afterwards."""
    output = subprocess.run([sys.executable, '-c', PROGRAM, mode], check=True, text=True,
                            capture_output=True).stdout
    return [int(line) for line in output.split()]


def test_freed_memory_is_reused_until_it_is_returned():
    """Without it the 400 MB would cost about 100 000 faults of 4 KiB."""
    faults, returned = run('keep')
    assert faults < 5_000
    assert returned > 30 * 2 ** 20
