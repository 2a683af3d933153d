"""The tree keeps its own rules: style, types, import direction, package files."""

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

ROOT = Path(__file__).parents[1]
PACKAGE = parse_package(str(ROOT / 'package.xml'))
CODE = ('marigold_ros', 'benchmarks', 'scenes')
FORMATTED = (*CODE, 'test', 'launch', 'setup.py')
MODULES = {'.'.join(path.relative_to(ROOT).with_suffix('').parts): path
           for path in sorted((ROOT / 'marigold_ros').rglob('*.py'))}
ROS_PACKAGES = [each.name for each in [*PACKAGE.exec_depends, *PACKAGE.test_depends]
                if not each.name.startswith('python3-')]
# What colcon runs on a robot.  The licence is said once, not in each of 300 files; what is left
# out of ament_pep257 is left out in ruff.toml and setup.cfg too.
LINTERS = {
    'ament_copyright': ['LICENSE'],
    'ament_flake8': ['--config', 'setup.cfg', *FORMATTED],
    'ament_pep257': ['--add-ignore', 'D400', 'D413', 'D415', 'D416', 'D417', '--', *FORMATTED],
    'ament_xmllint': ['package.xml']}
# From those that know nobody to those that know everybody; the longest name that fits counts.
LAYERS = [{'depth.types', 'depth.config', 'depth.errors', 'stop_flag'}, {'depth'},
          {'geometry', 'depth.engine'}, {'data', 'messages', 'metric', 'depth.adaptive'},
          {'ros', 'training', 'evaluation'}]
IMPORT_ALL = """
import importlib, pkgutil, sys
rooms, blocked = (text.split(',') for text in sys.argv[1:])
sys.modules.update(dict.fromkeys(blocked))
for room in rooms:
    module = importlib.import_module(room)
    for each in pkgutil.walk_packages(getattr(module, '__path__', []), room + '.'):
        importlib.import_module(each.name)
        print(each.name)
"""


def run_module(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a check on the tree, against the pinned packages whatever a path puts before them."""
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    return subprocess.run([sys.executable, '-m', name, *arguments], cwd=ROOT, env=environment,
                          capture_output=True, text=True)


def imported_modules(path: Path) -> set[str]:
    """List all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f'{node.module}.{alias.name}' for alias in node.names}
    return names


def layer(module: str) -> int:
    """Find how high a module of marigold_ros stands."""
    name = module.removeprefix('marigold_ros.')
    return max((len(room), height) for height, rooms in enumerate(LAYERS) for room in rooms
               if f'{name}.'.startswith(f'{room}.'))[1]


def may_import(module: str, name: str) -> bool:
    """As architecture draws it; nobody imports what is not installed, nor the node a study."""
    package, _, inside = name.partition('.')
    if package != 'marigold_ros':
        return package not in ('benchmarks', 'scenes')
    if re.match(r'marigold_ros\.ros\.(?!tools)', module):
        return not inside.startswith(('training', 'evaluation'))
    return layer(name) <= layer(module)


def requirements(name: str) -> set[str]:
    """Read the names of a requirements file, not of those that it includes."""
    lines = (ROOT / name).read_text().splitlines()
    return {line.lower() for line in lines if line and line[0] not in '#-'}


@pytest.mark.parametrize('check', [
    ('ruff', 'check', '.'), pytest.param(('mypy', *CODE), marks=pytest.mark.slow)])
def test_static_check_finds_nothing(check):
    result = run_module(*check)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize('linter', LINTERS)
def test_linter_of_a_robot_finds_nothing(linter):
    if find_spec(linter) is None:
        pytest.skip(f'{linter} is not installed; ROS brings it')
    if linter == 'ament_xmllint' and shutil.which('xmllint') is None:
        pytest.skip('xmllint is not installed; apt has it in libxml2-utils')
    result = run_module(f'{linter}.main', *LINTERS[linter])
    assert result.returncode == 0, result.stdout + result.stderr


OUTSIDE_ROS = ['scenes', *(f'marigold_ros.{path.stem}' for path in
                           sorted((ROOT / 'marigold_ros').iterdir())
                           if path.name not in ('ros', 'models', '__init__.py', '__pycache__'))]


@pytest.mark.parametrize('rooms, blocked', [
    (OUTSIDE_ROS, ROS_PACKAGES),
    ([f'marigold_ros.{room}' for room in ('geometry', 'messages', 'metric')],
     ['torch', 'diffusers', *ROS_PACKAGES])], ids=['ros', 'torch'])
def test_rooms_load_without(rooms, blocked):
    """Only ros/ needs ROS, and what the node shares with everybody loads without torch."""
    result = subprocess.run([sys.executable, '-c', IMPORT_ALL, ','.join(rooms), ','.join(blocked)],
                            cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert {'marigold_ros.metric.outputs', 'marigold_ros.messages.cloud'} <= set(
        result.stdout.split())


def test_imports_point_one_way():
    assert [f'{module} imports {name}' for module, path in MODULES.items()
            for name in imported_modules(path) if not may_import(module, name)] == []


def test_package_xml_is_what_colcon_needs():
    """catkin_pkg accepts it, and it builds as ament_python."""
    assert PACKAGE.name == 'marigold_ros'
    assert PACKAGE.get_build_type() == 'ament_python'
    assert f"version='{PACKAGE.version}'" in (ROOT / 'setup.py').read_text()


def test_every_requirement_is_pinned():
    """One constraints file pins all direct requirements, for every supported Python."""
    pinned = {re.split('[=;]', line)[0].strip().lower().replace('_', '-')
              for line in (ROOT / 'constraints.txt').read_text().splitlines()
              if line and not line.startswith('#')}
    for name in ('requirements-robot.txt', 'requirements.txt', 'requirements-dev.txt'):
        assert requirements(name) <= pinned


def test_a_robot_gets_every_import_from_apt_or_pip():
    """From package.xml or requirements-robot.txt, once, and neither names more than is used."""
    listed = [each.name for each in PACKAGE.exec_depends]
    listed += requirements('requirements-robot.txt')
    modules = {name.split('.')[0] for path in [*MODULES.values(), *(ROOT / 'launch').glob('*.py')]
               for name in imported_modules(path)}
    # jinja2 brings markupsafe; `evaluate --baseline` says how to get LiteRT.
    modules -= {*sys.stdlib_module_names, 'marigold_ros', 'benchmarks', 'markupsafe',
                'ai_edge_litert'}
    names = {name: {name.replace('_', '-'), name, f'python3-{name.lower()}'} for name in modules}
    names['cv2'] = {'python3-opencv'}
    assert [name for name in modules if len(names[name].intersection(listed)) != 1] == []
    # play_bag publishes the sample drive's odometry, accelerate writes curves for tensorboard.
    assert set(listed) - set().union(*names.values()) == {'nav_msgs', 'tensorboard'}
