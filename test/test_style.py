"""Checks of the repository: style, types, import direction, package files."""

from __future__ import annotations

import ast
from importlib.util import find_spec
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

from catkin_pkg.package import parse_package
import pytest
from rclpy.publisher import Publisher

ROOT = Path(__file__).parents[1]
PACKAGE = parse_package(str(ROOT / 'package.xml'))
CODE = ('marigold_ros', 'benchmarks', 'scenes')
FORMATTED = (*CODE, 'test', 'launch', 'setup.py', 'check_environment.py')
MODULES = {'.'.join(path.relative_to(ROOT).with_suffix('').parts): path
           for path in sorted((ROOT / 'marigold_ros').rglob('*.py'))}
ROS_PACKAGES = [each.name for each in [*PACKAGE.exec_depends, *PACKAGE.test_depends]
                if not each.name.startswith('python3-')]
# Linters that colcon runs.  Only LICENSE states the licence, not every file.  The rules that
# ament_pep257 ignores here are those that ruff.toml and setup.cfg ignore.
LINTERS = {
    'ament_copyright': ['LICENSE'],
    'ament_flake8': ['--config', 'setup.cfg', *FORMATTED],
    'ament_pep257': ['--add-ignore', 'D400', 'D413', 'D415', 'D416', 'D417', '--', *FORMATTED],
    'ament_xmllint': ['package.xml']}
# From lowest to highest; a module may import from its own layer and those below.  The longest
# matching name decides.
LAYERS = [{'depth.types', 'depth.config', 'depth.errors', 'files', 'memory', 'progress',
           'stop_flag'},
          {'depth'},
          {'geometry', 'depth.engine'}, {'data', 'messages', 'metric', 'depth.adaptive'},
          {'ros', 'training', 'evaluation'}]
IMPORT_ALL = """
import importlib, pkgutil, sys
from importlib.util import find_spec
packages, blocked = (text.split(',') for text in sys.argv[1:])
sys.modules.update(dict.fromkeys(blocked))
for package in packages:
    module = importlib.import_module(package)
    for each in pkgutil.walk_packages(getattr(module, '__path__', []), package + '.'):
        if not each.name.endswith('.ray_pool') or find_spec('ray'):  # of an extra
            importlib.import_module(each.name)
            print(each.name)
"""


def run_module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module in the repository, without PYTHONPATH so that pins apply."""
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    return subprocess.run([sys.executable, '-m', name, *arguments], cwd=ROOT, env=environment,
                          capture_output=True, text=True)


def imported_modules(path: Path) -> set[str]:
    """Return the names of all modules that a file imports, at any level."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def layer_index(module: str) -> int:
    """Return the index of the layer of a module of marigold_ros."""
    name = module.removeprefix('marigold_ros.')
    return max((len(prefix), index) for index, layer in enumerate(LAYERS) for prefix in layer
               if f'{name}.'.startswith(f'{prefix}.'))[1]


def may_import(module: str, name: str) -> bool:
    """Check an import: down the layers only, no uninstalled package, no study from the node."""
    package, _, inside = name.partition('.')
    if package != 'marigold_ros':
        return package not in ('benchmarks', 'scenes')
    if re.match(r'marigold_ros\.ros\.(?!tools)', module):
        return not inside.startswith(('training', 'evaluation'))
    return layer_index(name) <= layer_index(module)


def requirements(name: str) -> set[str]:
    """Return the names in a requirements file, without markers and included files."""
    lines = (ROOT / name).read_text().splitlines()
    return {line.split(';')[0].strip().lower() for line in lines if line and line[0] not in '#-'}


@pytest.mark.parametrize('check', [
    ('ruff', 'check', '.'), pytest.param(('mypy', *CODE), marks=pytest.mark.slow)])
def test_static_checks_pass(check):
    generic_rclpy = hasattr(Publisher, '__class_getitem__')
    if check[0] == 'mypy' and (generic_rclpy or sys.version_info < (3, 11)):
        pytest.skip('types are checked with the rclpy of Jazzy and the NumPy of Python 3.11 on')
    result = run_module(*check)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize('linter', LINTERS)
def test_ament_linters_pass(linter):
    if find_spec(linter) is None:
        pytest.skip(f'{linter} is not installed; ROS provides it')
    if linter == 'ament_xmllint' and shutil.which('xmllint') is None:
        pytest.skip('xmllint is not installed; apt package: libxml2-utils')
    result = run_module(f'{linter}.main', *LINTERS[linter])
    assert result.returncode == 0, result.stdout + result.stderr


OUTSIDE_ROS = ['scenes', *(f'marigold_ros.{path.stem}' for path in
                           sorted((ROOT / 'marigold_ros').iterdir())
                           if path.name not in ('ros', 'models', '__init__.py', '__pycache__'))]


@pytest.mark.parametrize('packages, blocked', [
    (OUTSIDE_ROS, ROS_PACKAGES),
    ([f'marigold_ros.{name}' for name in ('geometry', 'messages', 'metric')],
     ['torch', 'diffusers', *ROS_PACKAGES])], ids=['ros', 'torch'])
def test_packages_import_without_optional_dependencies(packages, blocked):
    """Only ros/ needs ROS; geometry/, messages/ and metric/ do not need torch."""
    arguments = [','.join(packages), ','.join(blocked)]
    result = subprocess.run([sys.executable, '-c', IMPORT_ALL, *arguments], cwd=ROOT,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert {'marigold_ros.metric.outputs', 'marigold_ros.messages.cloud'} <= set(
        result.stdout.split())


def test_modules_import_only_from_allowed_layers():
    assert [f'{module} imports {name}' for module, path in MODULES.items()
            for name in imported_modules(path) if not may_import(module, name)] == []


def test_package_xml_declares_an_ament_python_package():
    assert PACKAGE.name == 'marigold_ros'
    assert PACKAGE.get_build_type() == 'ament_python'
    assert f"version='{PACKAGE.version}'" in (ROOT / 'setup.py').read_text()


def test_every_requirement_is_pinned():
    """constraints.txt pins what the other files name; those of ROS pin what they name."""
    pinned = {re.split('[=;]', line)[0].strip().lower().replace('_', '-')
              for line in (ROOT / 'constraints.txt').read_text().splitlines()
              if line and not line.startswith('#')}
    for name in ('requirements-robot.txt', 'requirements.txt', 'requirements-dev.txt'):
        assert requirements(name) <= pinned
    jazzy, kilted = (requirements(f'requirements-{name}.txt') for name in ('jazzy', 'kilted'))
    assert all('==' in line for line in jazzy | kilted)
    assert ({re.split('-jazzy-|=', line)[1] for line in jazzy if '-jazzy-' in line}
            == {re.split('-kilted-|=', line)[1] for line in kilted if '-kilted-' in line})


def test_every_imported_package_is_declared_exactly_once():
    """In package.xml (apt) or requirements-robot.txt (pip), which declare no unused package."""
    listed = [each.name for each in PACKAGE.exec_depends]
    listed += requirements('requirements-robot.txt')
    modules = {name.split('.')[0] for path in [*MODULES.values(), *(ROOT / 'launch').glob('*.py')]
               for name in imported_modules(path)}
    # jinja2 depends on markupsafe; `evaluate` explains how to install LiteRT and Ray.
    modules -= {*sys.stdlib_module_names, 'marigold_ros', 'benchmarks', 'markupsafe',
                'ai_edge_litert', 'ray'}
    names = {name: {name.replace('_', '-'), name, f'python3-{name.lower()}'} for name in modules}
    names['cv2'] = {'python3-opencv'}
    assert [name for name in modules if len(names[name].intersection(listed)) != 1] == []
    # play_bag publishes the sample drive's odometry, accelerate writes curves for tensorboard.
    assert set(listed) - set().union(*names.values()) == {'nav_msgs', 'tensorboard'}
