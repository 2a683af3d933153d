"""The tree keeps its own rules: style, types, import direction, package files."""

from __future__ import annotations

import ast
import os
from pathlib import Path
import re
import subprocess
import sys

from catkin_pkg.package import parse_package
import pytest

ROOT = Path(__file__).parents[1]
CODE = ('marigold_ros', 'benchmarks', 'scenes')
SOURCES = sorted((ROOT / 'marigold_ros').rglob('*.py'))
ROS_PACKAGES = ('rclpy', 'sensor_msgs', 'std_msgs', 'geometry_msgs', 'diagnostic_msgs', 'nav_msgs',
                'std_srvs', 'rosgraph_msgs', 'cv_bridge', 'sensor_msgs_py', 'tf2_ros')


def imported_modules(path):
    """All modules that a file imports, wherever in it."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module)
    return names


@pytest.mark.parametrize('tool', [('flake8', *CODE, 'test', 'launch', 'setup.py'),
                                  ('mypy', *CODE)])
def test_static_check_finds_nothing(tool):
    """Style everywhere; strict types outside ros/; both as setup.cfg says."""
    # Types are checked against the pinned packages, whatever a path puts in front of them.
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    result = subprocess.run([sys.executable, '-m', *tool], cwd=ROOT, capture_output=True,
                            text=True, env=environment)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize('folder', ['depth', 'geometry', 'messages', 'data', 'training',
                                    'evaluation', 'metric'])
def test_only_the_ros_folder_imports_ros(folder):
    """So that evaluation, training and tests run where no ROS is installed."""
    for path in (ROOT / 'marigold_ros' / folder).rglob('*.py'):
        roots = {name.split('.')[0] for name in imported_modules(path)}
        assert not roots.intersection(ROS_PACKAGES), path


def test_imports_point_one_way():
    """Depth knows nobody; geometry and messages know depth's types only; ros knows no training."""
    for path in SOURCES:
        package = path.relative_to(ROOT / 'marigold_ros').parts[0]
        allowed = {'depth': {'depth'}, 'geometry': {'depth', 'geometry'},
                   'messages': {'depth', 'geometry', 'messages'}}.get(package)
        used = {name.split('.')[1] for name in imported_modules(path)
                if name.startswith('marigold_ros.')}
        if package in ('data', 'evaluation'):
            assert 'benchmark' not in used, path
        if allowed is not None:
            assert used <= allowed, path
        if package == 'ros' and 'tools' not in path.parts:
            assert not used & {'training', 'evaluation', 'benchmark'}, path


def test_package_xml_is_what_colcon_needs():
    """catkin_pkg accepts it, and it builds as ament_python."""
    package = parse_package(str(ROOT / 'package.xml'))
    assert package.name == 'marigold_ros'
    assert package.get_build_type() == 'ament_python'
    assert f"version='{package.version}'" in (ROOT / 'setup.py').read_text()


def test_every_requirement_is_pinned():
    """One constraints file pins all direct requirements, for every supported Python."""
    pinned = {re.split('[=;]', line)[0].strip().lower().replace('_', '-')
              for line in (ROOT / 'constraints.txt').read_text().splitlines()
              if line and not line.startswith('#')}
    for name in ('requirements.txt', 'requirements-dev.txt'):
        for line in (ROOT / name).read_text().splitlines():
            if line and line[0] not in '#-':
                assert line.lower() in pinned, line
