"""Environment of a measurement: machine, package versions, commit."""

from __future__ import annotations

from datetime import datetime, timezone
from importlib.metadata import version
from importlib.util import find_spec
import os
from pathlib import Path
import platform
import subprocess
from typing import Any

import torch

PACKAGES = ('torch', 'diffusers', 'numpy')
# Named where they are installed.
OPTIONAL_PACKAGES = ('openvino', 'triton')


def describe_environment(device: torch.device = torch.device('cpu')) -> dict[str, Any]:
    """Return machine, package versions and commit, ready for JSON."""
    facts: dict[str, Any] = {
        'date_utc': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'commit': describe_commit(),
        'python': platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        **{name: version(name) for name in OPTIONAL_PACKAGES if find_spec(name)},
        'system': platform.platform(),
        'cpu': _cpu_name(),
        'cores': count_cores(),
        'torch_threads': torch.get_num_threads(),
        'load_average_1min': round(os.getloadavg()[0], 2),
        'device': str(device),
    }
    if device.type == 'cuda':
        facts['gpu'] = torch.cuda.get_device_name(device)
        facts['gpu_memory_bytes'] = torch.cuda.get_device_properties(device).total_memory
        facts['cuda'] = torch.version.cuda
    return facts


def count_cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0))


def describe_commit() -> str:
    """Return the commit of this code, with '-dirty' if modified; 'unknown' outside git."""
    try:
        return subprocess.run(
            ['git', 'describe', '--always', '--dirty', '--exclude=*'], check=True, text=True,
            cwd=Path(__file__).parent, capture_output=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return 'unknown'


def _cpu_name() -> str:
    """Return the model name of the processor from /proc/cpuinfo, else the architecture."""
    information = Path('/proc/cpuinfo')
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith('model name'):
                return line.split(':', 1)[1].strip()
    return platform.machine()
