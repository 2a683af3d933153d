"""`make` builds one environment for one Python and one ROS, or says in a line why it cannot."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
import os
from pathlib import Path
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / 'check_environment.py'
SPEC = spec_from_file_location('check_environment', SCRIPT)
check = module_from_spec(SPEC)
SPEC.loader.exec_module(check)
HERE = 'Python {}.{}'.format(*sys.version_info)


def set_python(monkeypatch, version, *, implementation='CPython', maxsize=2**63 - 1):
    monkeypatch.setattr(check, 'sys', SimpleNamespace(
        version_info=version, executable='/opt/python', maxsize=maxsize))
    monkeypatch.setattr(check.platform, 'python_implementation', lambda: implementation)
    monkeypatch.setattr(check.platform, 'python_version', lambda: '.'.join(map(str, version)))


@pytest.mark.parametrize('version, implementation, said', [
    ((2, 7, 18), 'CPython', 'CPython 2.7.18'), ((3, 9, 18), 'CPython', 'CPython 3.9.18'),
    ((3, 15, 0), 'CPython', 'CPython 3.15.0'), ((3, 11, 9), 'PyPy', 'PyPy 3.11.9')])
def test_a_python_without_wheels_is_named_with_those_that_have_them(
        monkeypatch, version, implementation, said):
    set_python(monkeypatch, version, implementation=implementation)
    assert check.python_problem() == (
        f'/opt/python is {said}, but the wheels are for CPython 3.10 to 3.14: choose one of '
        'these, for example PYTHON=python3.12')


def test_a_free_threaded_python_has_no_wheels(monkeypatch):
    set_python(monkeypatch, (3, 14, 1))
    assert check.python_problem() is None
    monkeypatch.setattr(check.sysconfig, 'get_config_var', {'Py_GIL_DISABLED': 1}.get)
    assert 'is free-threaded CPython 3.14.1' in check.python_problem()


@pytest.mark.parametrize('system, libc, maxsize, said', [
    ('linux-x86_64', ('glibc', '2.28'), 2**63 - 1, None),
    ('linux-x86_64', ('glibc', '2.4'), 2**63 - 1, 'linux-x86_64 with glibc 2.4'),
    ('linux-x86_64', ('', ''), 2**63 - 1, 'linux-x86_64 without glibc'),
    ('linux-x86_64', ('glibc', '2.36'), 2**31 - 1, 'linux-x86_64 with a 32-bit Python'),
    ('linux-aarch64', ('glibc', '2.36'), 2**63 - 1, 'linux-aarch64'),
    ('macosx-14-arm64', ('', ''), 2**63 - 1, 'macosx-14-arm64')])
def test_a_machine_without_wheels_is_named(monkeypatch, system, libc, maxsize, said):
    set_python(monkeypatch, (3, 12, 1), maxsize=maxsize)
    monkeypatch.setattr(check.sysconfig, 'get_platform', lambda: system)
    monkeypatch.setattr(check.platform, 'libc_ver', lambda: libc)
    assert check.machine_problem() == (said and (
        f'this is {said}, but the wheels are for linux-x86_64 with glibc 2.28 or newer: use a '
        'ROS installation (docs/installation.md)'))


def test_a_debian_without_its_venv_package_is_told_its_name(monkeypatch):
    monkeypatch.setitem(sys.modules, 'ensurepip', None)
    set_python(monkeypatch, (3, 11, 2))
    assert check.module_problem() == (
        '/opt/python has no module ensurepip: on Debian and Ubuntu, apt install python3.11-venv')


def run_make(*arguments, **environment):
    """Run make as from a shell without the variables of the make that runs the tests."""
    if shutil.which('make') is None:
        pytest.skip('make is not installed')
    clean = {name: value for name, value in os.environ.items() if name not in (
        'MAKEFLAGS', 'MAKELEVEL', 'MFLAGS', 'VENV', 'PYTHON', 'ROS_DISTRO', 'AMENT_PREFIX_PATH')}
    return subprocess.run(['make', *arguments], cwd=ROOT, env={**clean, **environment},
                          capture_output=True, text=True)


@pytest.fixture
def kilted_environment(tmp_path):
    """Make a folder like an environment in which the wheels of Kilted are installed."""
    packages = tmp_path / 'lib' / HERE.lower().replace(' ', '') / 'site-packages'
    (packages / 'ros_kilted_rclpy-9.1.2.dist-info').mkdir(parents=True)
    return tmp_path


def test_make_ends_with_one_line_rather_than_mix_two_distributions(kilted_environment):
    python = f'PYTHON={sys.executable}'
    folder = kilted_environment
    result = run_make('demo', python, f'VENV={folder}')
    line, end = result.stderr.splitlines()
    assert line == (f'{folder} holds {HERE}, ROS 2 kilted: for {HERE}, ROS 2 jazzy choose another '
                    f'folder, for example VENV={folder}-jazzy')
    assert end.startswith('make: ***') and result.returncode == 2
    assert run_make('check', python, f'VENV={folder}', 'ROS_DISTRO=kilted').returncode == 0


def test_make_ends_with_one_line_rather_than_mix_two_pythons(kilted_environment):
    (kilted_environment / 'lib').joinpath(HERE.lower().replace(' ', '')).rename(
        kilted_environment / 'lib' / 'python3.9')
    result = run_make('test', f'PYTHON={sys.executable}', f'VENV={kilted_environment}')
    assert result.stderr.startswith(
        f'{kilted_environment} holds Python 3.9, ROS 2 kilted: for {HERE}, ROS 2 jazzy choose '
        f'another folder, for example VENV={kilted_environment}-{HERE.split()[1]}\n')


def test_make_knows_two_distributions_and_gives_each_its_environment(tmp_path):
    assert run_make('check', 'ROS_DISTRO=humble', f'PYTHON={sys.executable}').stderr.splitlines(
        )[0] == 'ROS_DISTRO=humble, but wheels are pinned for jazzy and kilted only'
    assert '\n.venv/bin/demo\n' in run_make('-n', 'demo').stdout
    kilted = run_make('-n', 'demo', 'ROS_DISTRO=kilted', f'VENV={tmp_path}').stdout
    assert '--requirement requirements-kilted.txt' in kilted and 'jazzy' not in kilted
    assert '\n.venv-kilted/bin/demo\n' in run_make('-n', 'demo', 'ROS_DISTRO=kilted').stdout


def test_make_leaves_a_sourced_ros_out_and_says_so():
    """Its packages would come before the wheels."""
    show = '--eval=show: ; @env'
    result = run_make(show, 'show', ROS_DISTRO='kilted', AMENT_PREFIX_PATH='/opt/ros/kilted',
                      PYTHONPATH='/opt/ros/kilted/lib', LD_LIBRARY_PATH='/opt/ros/kilted/lib')
    assert 'on the wheels of ROS 2 jazzy, without the sourced ROS' in result.stdout
    assert 'ROS_DISTRO=jazzy' in result.stdout and '/opt/ros' not in result.stdout
    assert 'PYTHONPATH=mine' in run_make(show, 'show', PYTHONPATH='mine').stdout
