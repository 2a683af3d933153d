"""What parameter files give to a node of a name and namespace."""

from __future__ import annotations

from pathlib import Path
import subprocess
import sys

from node_harness import find_free_domain
import pytest
import rclpy

from marigold_ros.depth.errors import ConfigError
from marigold_ros.ros.parameter_files import read_parameters, warn_of_unused_files


def write(folder: Path, text: str, name: str = 'parameters.yaml') -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def section(*keys: str, value: str) -> str:
    """Format a section of a parameter file that sets `device`."""
    lines = [*keys, 'ros__parameters']
    return ''.join(f'{"  " * depth}{key}:\n' for depth, key in enumerate(lines)) + (
        '  ' * len(lines) + f'device: {value}\n')


@pytest.mark.parametrize(('namespace', 'keys', 'found'), [
    ('/', ['depth_node'], True), ('/', ['/depth_node'], True), ('/', ['/**'], True),
    ('/', ['/*'], True), ('/', ['robot1', 'depth_node'], False),
    ('/robot1', ['robot1', 'depth_node'], True), ('/robot1', ['/robot1/depth_node'], True),
    ('/robot1', ['depth_node'], False), ('/robot1', ['/**/depth_node'], True),
    ('/robot1', ['/*/depth_node'], True), ('/robot1/arm', ['/*/depth_node'], False),
    ('/robot1/arm', ['robot1', 'arm', 'depth_node'], True), ('/robot1', ['robot1/*'], True)])
def test_sections_are_those_of_the_node(tmp_path, namespace, keys, found):
    file = write(tmp_path, section(*keys, value='cpu'))
    assert read_parameters('depth_node', namespace, ['--params-file', file]) == (
        {'device': 'cpu'} if found else {})


def test_the_last_of_several_values_counts(tmp_path):
    own = write(tmp_path, section('depth_node', value='one') + section('/**', value='two'), 'a')
    other = write(tmp_path, section('/**', value='three'), 'b')
    files = ['--params-file', own, '--params-file', other]
    assert read_parameters('depth_node', '/', files[:2]) == {'device': 'two'}
    assert read_parameters('depth_node', '/', files) == {'device': 'three'}
    assert read_parameters('depth_node', '/', [*files, '-p', 'device:=four']) == {'device': 'four'}
    # To rcl, -p is in a section /**, and a section keeps its first place.
    assert read_parameters('depth_node', '/', ['-p', 'device:=four', *files]) == {'device': 'one'}


def test_nested_names_are_joined_and_types_kept(tmp_path):
    file = write(tmp_path, '/**:\n  ros__parameters:\n    scale: {sources: [cloud], hold_s: 2}\n'
                 '    cameras: [front]\n    compile: yes\n    alpha: 1e2\n    none: []\n')
    assert read_parameters('depth_node', '/', ['--params-file', file]) == {
        'scale.sources': ['cloud'], 'scale.hold_s': 2, 'cameras': ['front'], 'compile': True,
        'alpha': 100.0, 'none': []}


@pytest.mark.parametrize('text', ['', '# nothing\n', '/**:\n  ros__parameters: {}\n'])
def test_a_file_may_be_empty(tmp_path, text):
    assert read_parameters('depth_node', '/', ['--params-file', write(tmp_path, text)]) == {}


@pytest.mark.parametrize(('text', 'message'), [
    ('/**:\n  ros__parameters:\n', 'is invalid: .* line 2; expected are sections'),
    ('/**:\n  ros__parameters:\n    cameras:\n', 'No value at line 3'),
    ('cameras: [front]\n', 'is invalid: .* line 1; expected are sections'),
    ('/**:\n  ros__parameters:\n    cameras: [front, 2]\n', 'should be of same type'),
    ('a: b: c', 'is invalid'), ('/**:\n\tros__parameters: {}', 'is invalid'),
    ('/**:\n  ros__parameters:\n    use_sim_time: 1\n', "'use_sim_time' to '1' .* expecting")])
def test_an_invalid_file_is_named_in_one_line(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message) as err:
        read_parameters('depth_node', '/', ['--params-file', write(tmp_path, text)])
    assert '\n' not in str(err.value) and '.c:' not in str(err.value)


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path / 'nowhere.yaml', tmp_path):
        with pytest.raises(ConfigError, match=f'no parameter file {path}$'):
            read_parameters('depth_node', '/', ['--params-file', str(path)])


def test_a_file_without_a_section_for_the_node_is_named(tmp_path, capfd):
    used = write(tmp_path, section('/**', value='cpu'), 'used.yaml')
    unused = write(tmp_path, section('depth', value='cpu'), 'unused.yaml')
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=find_free_domain())
    node = rclpy.create_node('depth_node', namespace='/robot1', context=context)
    warn_of_unused_files(node, ['--ros-args', '--params-file', used, '--params-file', unused])
    rclpy.shutdown(context=context)
    log = capfd.readouterr().err
    assert f'{unused} has no parameters for /robot1/depth_node' in log and used not in log


def test_launch_files_import_nothing_that_only_a_virtual_environment_has():
    """`ros2 launch` runs in the system's Python."""
    code = ('import sys, marigold_ros.ros.parameter_files, marigold_ros.ros.tools.command_line, '
            'marigold_ros.ros.tools.launch_arguments, marigold_ros.ros.tools.share_files; '
            'print([each for each in ("torch", "cv2", "scipy", "diffusers", "rosbags", "tqdm") '
            'if each in sys.modules])')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert result.stdout == '[]\n', result.stderr
