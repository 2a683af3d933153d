"""Rule of the folders that the node shares with everybody else: they load alone."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, sys
for name in ('torch', 'diffusers', 'rclpy', 'sensor_msgs', 'cv_bridge'):
    sys.modules[name] = None
for package in ('marigold_ros.geometry', 'marigold_ros.messages', 'marigold_ros.metric'):
    path = importlib.import_module(package).__path__
    for module in pkgutil.walk_packages(path, package + '.'):
        importlib.import_module(module.name)
        print(module.name)
"""


def test_messages_geometry_and_metric_load_without_torch_and_ros():
    result = subprocess.run([sys.executable, '-c', SCRIPT], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert set(result.stdout.split()) >= {
        f'marigold_ros.{name}' for name in ('geometry.camera', 'messages.cloud', 'metric.outputs',
                                            'metric.sources.ground_plane')}
