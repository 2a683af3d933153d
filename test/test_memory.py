"""Freed memory is reused until it is returned to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
import sys
import numpy as np
from marigold_ros.memory import keep_freed_memory, return_freed_memory
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


HEAPS = """
import ctypes
import sys
import threading
import numpy as np
from marigold_ros.memory import keep_freed_memory
if sys.argv[1] == 'keep':
    keep_freed_memory()
all_allocate = threading.Barrier(6)
def use():
    array = np.ones(200_000, np.uint8)
    all_allocate.wait()
threads = [threading.Thread(target=use) for _ in range(6)]
for each in threads:
    each.start()
for each in threads:
    each.join()
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[2].encode(), b'w'))
libc.malloc_info(0, file)
libc.fclose(file)
"""


@pytest.mark.parametrize('mode, share', [('keep', True), ('default', False)])
def test_threads_share_two_heaps(tmp_path, mode, share):
    path = tmp_path / 'heaps.xml'
    subprocess.run([sys.executable, '-c', HEAPS, mode, str(path)], check=True)
    assert (path.read_text().count('<heap nr=') <= 2) == share
