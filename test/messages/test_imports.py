"""Rule of the two folders that every reader and writer of messages shares: they load alone."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys
for name in ('torch', 'diffusers', 'rclpy', 'sensor_msgs', 'cv_bridge'):
    sys.modules[name] = None
for package in ('marigold_ros.geometry', 'marigold_ros.messages'):
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        importlib.import_module(f'{package}.{module.name}')
        print(module.name)
"""


def test_messages_and_geometry_load_without_torch_and_without_ros():
    result = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) >= {'camera', 'unproject', 'image', 'depth', 'cloud'}
