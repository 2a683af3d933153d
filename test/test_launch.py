"""Launch files, visited as launch visits them, and the configuration files that they use."""

from __future__ import annotations

from importlib.util import find_spec
import json
import logging
import os
from pathlib import Path
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import launch_stand_in
from lifecycle_msgs.msg import State, TransitionEvent
import pytest
import yaml

from marigold_ros.ros.camera_output import INFO_TOPICS, TOPICS
from marigold_ros.ros.parameters import TABLE
from marigold_ros.ros.tools import share_files
from marigold_ros.ros.tools.share_files import PROFILE_VARIABLES

ROOT = Path(__file__).parents[1]
DDS = '{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}'
OUTPUT_TOPICS = {f'/camera/{topic}' for topic in [*TOPICS.values(), *INFO_TOPICS.values()]}
REPLAY_ARGUMENTS = ['bag', 'rate', 'start_offset', 'loop', 'wait_s']
DEPTH_ARGUMENTS = [
    'params_file', 'checkpoint', 'cameras', 'image_topic', 'camera_info_topic', 'scale_sources',
    'reference_topic', 'reference_camera_info_topic', 'latency_cap_ms', 'device', 'use_sim_time',
    'namespace', 'rviz']


class Launch:
    """A launch that remembers nodes instead of starting them; launch is the real one or not."""

    def __init__(self, share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from launch import LaunchContext
        from launch.launch_description_sources import PythonLaunchDescriptionSource
        from launch_ros.actions import LifecycleNode, Node

        self.folder, self.context = share / 'launch', LaunchContext()
        self.source = PythonLaunchDescriptionSource
        self.started: list = []
        create = Node.__init__

        def remember(node, **given) -> None:
            create(node, **given)
            node.given = given

        def start(node, context) -> None:
            node._perform_substitutions(context)
            self.started.append(node)

        monkeypatch.setattr(Node, '__init__', remember)
        for kind in (Node, LifecycleNode):
            monkeypatch.setattr(kind, 'execute', start)

    def include(self, file: str, **arguments: str):
        """Return the action that includes a launch file."""
        from launch.actions import IncludeLaunchDescription
        return IncludeLaunchDescription(self.source(str(self.folder / file)),
                                        launch_arguments=arguments.items())

    def visit(self, *actions) -> dict:
        """Visit actions, and return what the last started node was given."""
        from launch.utilities import visit_all_entities_and_collect_futures
        for action in actions:
            visit_all_entities_and_collect_futures(action, self.context)
        return self.started[-1].given if self.started else {}

    def activate(self, node_name: str) -> None:
        """Emit the event of a lifecycle node that becomes active."""
        from launch_ros.events.lifecycle import StateTransition
        event = StateTransition(
            action=SimpleNamespace(node_name=node_name),
            msg=TransitionEvent(goal_state=State(id=State.PRIMARY_STATE_ACTIVE, label='active')))
        for handler in tuple(self.context._event_handlers):
            if handler.matches(event):
                self.visit(*handler.handle(event, self.context))


@pytest.fixture
def share(tmp_path, monkeypatch):
    """Install the package's share folder in an index of its own."""
    index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    (index / 'marigold_ros').touch()
    (tmp_path / 'share' / 'marigold_ros').symlink_to(ROOT)
    monkeypatch.setenv('AMENT_PREFIX_PATH', str(tmp_path))
    for variable in PROFILE_VARIABLES:
        monkeypatch.setenv(variable, '')
        del os.environ[variable]
    return tmp_path / 'share' / 'marigold_ros'


@pytest.fixture
def launch(share, monkeypatch):
    if find_spec('launch_ros') is None:
        launch_stand_in.install(monkeypatch)
    return Launch(share, monkeypatch)


def write_parameters(folder: Path, text: str) -> str:
    """Write a parameter file."""
    path = folder / 'parameters.yaml'
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(('file', 'names'), [
    ('depth.launch.py', DEPTH_ARGUMENTS),
    ('replay.launch.py', [*REPLAY_ARGUMENTS, *DEPTH_ARGUMENTS])])
def test_launch_files_declare_the_documented_arguments(launch, file, names):
    source = launch.source(str(launch.folder / file))
    declared = source.get_launch_description(launch.context).get_launch_arguments()
    assert [each.name for each in declared] == names
    assert all(each.description for each in declared)


def test_an_empty_argument_does_not_override_the_parameter_file(launch, share):
    given = launch.visit(launch.include('depth.launch.py', **dict.fromkeys(DEPTH_ARGUMENTS, '')))
    assert given['parameters'] == [str(share / 'config' / 'depth.yaml')]
    assert given['remappings'] == []
    assert [node.node_name for node in launch.started] == ['/depth_node']


def test_arguments_become_parameters_of_their_types(launch):
    given = launch.visit(launch.include(
        'depth.launch.py', cameras='[front, rear]', latency_cap_ms='150', use_sim_time='1',
        scale_sources='[cloud, ground_plane]', device='cpu', namespace='robot1'))
    assert given['parameters'][1] == {
        'cameras': ['front', 'rear'], 'latency_cap_ms': 150.0, 'use_sim_time': True,
        'scale.sources': ['cloud', 'ground_plane'], 'device': 'cpu'}
    assert set(given['parameters'][1]) - {'use_sim_time'} <= {row.name for row in TABLE}
    assert launch.started[0].node_name == '/robot1/depth_node'


@pytest.mark.parametrize(('file', 'arguments', 'message'), [
    ('depth.launch.py', {'params_file': 'nowhere.yaml'}, 'no parameter file nowhere.yaml'),
    ('depth.launch.py', {'latency_cap_ms': 'abc'}, '`latency_cap_ms` must be a number; got abc'),
    ('depth.launch.py', {'use_sim_time': 'maybe'}, '`use_sim_time` must be true or false; got ma'),
    ('depth.launch.py', {'cameras': '[]'}, '`cameras` must hold at least one name'),
    ('depth.launch.py', {'rviz': 'maybe'}, '`rviz` must be true or false; got maybe'),
    ('depth.launch.py', {'rviz': 'true'}, "package 'rviz2' not found"),
    ('depth.launch.py', {'cameras': 'a, b', 'image_topic': '/x'}, '`image_topic` is for a single'),
    ('depth.launch.py', {'reference_topic': '/x'},
     r"depth or cloud or scan; scale.sources is \['none'\]"),
    ('depth.launch.py', {'scale_sources': 'scan', 'reference_camera_info_topic': '/x'},
     r"is for one scale source that is depth; scale.sources is \['scan'\]"),
    ('depth.launch.py', {'scale_sources': '[cloud, scan]', 'reference_topic': '/x'},
     r"for one scale source that is depth or .*; scale.sources is \['cloud', 'scan'\]"),
    ('replay.launch.py', {'rviz': 'true'}, "package 'rviz2' not found"),
    ('replay.launch.py', {'bag': 'nowhere'}, '`bag` must be an existing file or folder'),
    ('replay.launch.py', {'rate': '0'}, '`rate` must be above 0; got 0'),
    ('replay.launch.py', {'start_offset': '-1'}, '`start_offset` must be 0 or more; got -1'),
    ('replay.launch.py', {'loop': 'maybe'}, '`loop` must be true or false; got maybe'),
    ('replay.launch.py', {'wait_s': 'x'}, '`wait_s` must be a number; got x')])
def test_an_argument_that_cannot_work_is_named_before_anything_is_started(
        launch, file, arguments, message):
    with pytest.raises(Exception, match=message):
        launch.visit(launch.include(file, **arguments))
    assert launch.started == []


@pytest.mark.parametrize(('text', 'message'), [
    ('cameras: front', "`cameras` must be a list, .*; got 'front'"),
    ('scale: {sources: cloud}', "`scale.sources` must be a list, .*; got 'cloud'")])
def test_cameras_and_scale_sources_in_a_parameter_file_must_be_lists(
        launch, tmp_path, text, message):
    file = write_parameters(tmp_path, f'/**:\n  ros__parameters:\n    {text}\n')
    with pytest.raises(ValueError, match=message):
        launch.visit(launch.include('depth.launch.py', params_file=file))
    assert launch.started == []


def test_rviz_uses_the_time_of_the_node(launch, tmp_path):
    for file in ('share/ament_index/resource_index/packages/rviz2', 'lib/rviz2/rviz2'):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch(mode=0o755)
    given = launch.visit(launch.include('depth.launch.py', rviz='True', use_sim_time='true'))
    assert given['executable'] == str(tmp_path / 'lib' / 'rviz2' / 'rviz2')
    assert given['parameters'] == [{'use_sim_time': True}]
    assert len(launch.started) == 2


def test_topics_of_the_drivers_of_a_single_camera_are_remapped(launch):
    given = launch.visit(launch.include(
        'depth.launch.py', cameras='front', image_topic='/usb_cam/image_raw',
        camera_info_topic='/usb_cam/info', scale_sources='depth', reference_topic='/stereo/depth',
        reference_camera_info_topic='/stereo/info'))
    assert given['remappings'] == [
        ('front/image_raw', '/usb_cam/image_raw'), ('front/camera_info', '/usb_cam/info'),
        ('front/scale/camera_info', '/stereo/info'), ('front/scale/depth', '/stereo/depth')]


def test_the_parameter_file_is_read_for_the_node_in_its_namespace(launch, tmp_path):
    from launch.actions import GroupAction
    from launch_ros.actions import PushRosNamespace
    file = write_parameters(tmp_path, (
        'robot1:\n  arm:\n    depth_node:\n      ros__parameters:\n        cameras: [front]\n'
        '        scale: {sources: [ground_plane, cloud]}\n'
        'depth_node:\n  ros__parameters:\n    cameras: [left, right]\n'))
    given = launch.visit(GroupAction([PushRosNamespace('robot1'), launch.include(
        'depth.launch.py', params_file=file, namespace='arm', image_topic='/image',
        reference_topic='/points')]))
    assert given['remappings'] == [('front/image_raw', '/image'), ('front/scale/cloud', '/points')]


def test_a_parameter_that_a_group_sets_is_known(launch, tmp_path):
    from launch.actions import GroupAction
    from launch_ros.actions import SetParameter
    file = write_parameters(tmp_path, '/**:\n  ros__parameters:\n    device: cpu\n')
    given = launch.visit(GroupAction([SetParameter('scale.sources', ['scan']), launch.include(
        'depth.launch.py', params_file=file, reference_topic='/scan')]))
    assert given['remappings'] == [('camera/scale/scan', '/scan')]


def test_the_arguments_of_a_group_reach_the_player_that_starts_after_it(launch):
    from launch.actions import GroupAction
    bag = str(ROOT / 'sample' / 'living_room')
    launch.visit(GroupAction([launch.include(
        'replay.launch.py', bag=bag, rate='4', start_offset='2', loop='TRUE', wait_s='0.5')]))
    launch.activate('/another_node')
    assert len(launch.started) == 1
    for _ in range(2):
        launch.activate('/depth_node')
    assert len(launch.started) == 2
    assert launch.started[0].given['parameters'][1] == {'use_sim_time': True}
    assert launch.started[1].given['arguments'] == [
        bag, '--clock', '--rate', '4.0', '--start-offset', '2.0', '--wait-for-subscribers', '0.5',
        '--loop']


def test_the_end_of_the_playback_shuts_down_once(launch):
    launch.visit(launch.include('replay.launch.py'))
    launch.activate('/depth_node')
    on_exit = launch.started[1].given['on_exit']
    assert len(on_exit(None, launch.context)) == 1
    launch.context._set_is_shutdown(True)  # by Ctrl-C
    assert on_exit(None, launch.context) == []


@pytest.mark.parametrize(('file', 'similar'), [
    ('depth.launch.py', '`latency_cap` (did you mean `latency_cap_ms`?), `rate`'),
    ('replay.launch.py', '`latency_cap` (did you mean `latency_cap_ms`?)'),
    ('robot.launch.py', '')])
def test_an_argument_that_does_not_exist_is_named_where_the_file_was_started(
        launch, monkeypatch, file, similar):
    warnings: list[str] = []
    monkeypatch.setattr(logging.Logger, 'warning', lambda self, text: warnings.append(text))
    monkeypatch.setattr(sys, 'argv', ['ros2', 'launch', file])
    launch.context.argv[:] = ['latency_cap:=100', 'rate:=2', 'device:=cpu']
    launch.visit(launch.include('replay.launch.py' if file.startswith('r') else file))
    assert warnings == ([f'ignored, because {file} has no such argument: {similar}'] if similar
                        else [])


def test_the_dds_profile_sends_large_images_by_shared_memory():
    root = ElementTree.parse(ROOT / 'config' / 'fastdds_large_images.xml').getroot()
    transports = {each.findtext(f'{DDS}transport_id'): each
                  for each in root.iter(f'{DDS}transport_descriptor')}
    shared = next(each for each in transports.values() if each.findtext(f'{DDS}type') == 'SHM')
    assert shared.findtext(f'{DDS}segment_size') == '67108864'
    assert shared.findtext(f'{DDS}maxMessageSize') == '16777216'
    participant = root.find(f'.//{DDS}participant')
    assert participant.get('is_default_profile') == 'true'
    assert participant.findtext(f'.//{DDS}useBuiltinTransports') == 'false'
    used = [each.text for each in participant.iter(f'{DDS}transport_id')]
    assert sorted(transports[name].findtext(f'{DDS}type') for name in used) == ['SHM', 'UDPv4']


OLD, NEW = PROFILE_VARIABLES


@pytest.mark.parametrize('rclpy_version, chosen, selected', [
    ('7.1.6', (), OLD), ('7.1.6', (OLD,), None), ('7.1.6', (NEW,), OLD),
    ('9.1.2', (), NEW), ('9.1.2', (OLD,), None), ('9.1.2', (NEW,), None)])
def test_the_dds_profile_is_selected_for_the_fast_dds_that_runs_unless_the_user_did(
        launch, monkeypatch, rclpy_version, chosen, selected):
    """Jazzy's reads the old variable alone; Kilted's reads both, and warns of the old one."""
    monkeypatch.setattr(share_files, 'version', {'rclpy': rclpy_version}.get)
    for variable in chosen:
        monkeypatch.setenv(variable, 'mine.xml')
    launch.visit(launch.include('depth.launch.py'))
    files = {variable: os.environ.get(variable) for variable in PROFILE_VARIABLES}
    own = str(ROOT / 'config' / 'fastdds_large_images.xml')
    assert files == {OLD: None, NEW: None, **dict.fromkeys(chosen, 'mine.xml'),
                     **({selected: own} if selected else {})}


def camera_topics(tree) -> set[str]:
    """Return every topic below /camera in nested lists and dictionaries, including keys."""
    if isinstance(tree, dict):
        return set().union(*map(camera_topics, [*tree, *tree.values()]))
    if isinstance(tree, list):
        return set().union(*map(camera_topics, tree))
    return {tree} if isinstance(tree, str) and tree.startswith('/camera/') else set()


def test_rviz_and_foxglove_use_published_topics():
    rviz = yaml.safe_load((ROOT / 'config' / 'depth.rviz').read_text())
    layout = json.loads((ROOT / 'config' / 'foxglove_layout.json').read_text())
    for tree in (rviz, layout):
        assert '/camera/points' in camera_topics(tree) <= OUTPUT_TOPICS


def test_the_foxglove_layout_contains_every_panel():
    layout = json.loads((ROOT / 'config' / 'foxglove_layout.json').read_text())

    def leaves(node) -> set[str]:
        return {node} if isinstance(node, str) else leaves(node['first']) | leaves(node['second'])

    assert leaves(layout['layout']) == set(layout['configById'])
