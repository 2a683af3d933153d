"""Launch files and the configuration files that they use."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from marigold_ros.ros.camera_output import INFO_TOPICS, TOPICS
from marigold_ros.ros.parameters import TABLE

ROOT = Path(__file__).parents[1]
DEPTH, REPLAY = ROOT / 'launch' / 'depth.launch.py', ROOT / 'launch' / 'replay.launch.py'
DDS = '{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}'
OUTPUT_TOPICS = {f'/camera/{topic}' for topic in [*TOPICS.values(), *INFO_TOPICS.values()]}
DOCUMENTED = ['params_file', 'checkpoint', 'cameras', 'image_topic', 'camera_info_topic',
              'latency_cap_ms', 'device', 'use_sim_time', 'namespace', 'rviz']


def definitions(path: Path, *names: str) -> dict:
    """Evaluate given functions and constants of a launch file without importing launch."""
    tree = ast.parse(path.read_text(), str(path))
    chosen = [node for node in tree.body
              if (isinstance(node, ast.FunctionDef) and node.name in names)
              or (isinstance(node, ast.Assign) and node.targets[0].id in names)]
    assert len(chosen) == len(names)
    namespace = {'Path': Path, 'yaml': yaml, 'CONFIG': Path('config'), 'SHARE': Path('share')}
    exec(compile(ast.Module(chosen, []), str(path), 'exec'), namespace)
    return namespace


def test_launch_files_declare_the_documented_arguments():
    arguments = definitions(DEPTH, 'ARGUMENTS')['ARGUMENTS']
    assert list(arguments) == DOCUMENTED
    assert all(description for _, description in arguments.values())
    replay = definitions(REPLAY, 'ARGUMENTS')['ARGUMENTS']
    assert list(replay) == ['bag', 'rate', 'start_offset', 'loop', 'wait_s']


def test_an_unset_argument_does_not_override_the_parameter_file():
    names = definitions(DEPTH, 'ARGUMENTS', 'PARAMETERS')
    for name in names['PARAMETERS']:
        assert names['ARGUMENTS'][name][0] == ''
    assert set(names['PARAMETERS']) - {'use_sim_time'} <= {row.name for row in TABLE}


def test_argument_strings_are_parsed_to_parameter_types():
    convert = definitions(DEPTH, 'PARAMETERS')['PARAMETERS']
    assert convert['cameras']('[front, rear]') == ['front', 'rear']
    assert convert['cameras']('front') == ['front']
    assert convert['latency_cap_ms']('150') == 150.0
    assert (convert['use_sim_time']('True'), convert['use_sim_time']('false')) == (True, False)


def test_topics_are_remapped_for_a_single_camera_only():
    names = definitions(DEPTH, 'remappings')
    given = {'image_topic': '/usb_cam/image_raw', 'camera_info_topic': '/usb_cam/info'}
    assert names['remappings'](given, ['camera']) == [
        ('camera/image_raw', '/usb_cam/image_raw'), ('camera/camera_info', '/usb_cam/info')]
    assert names['remappings']({}, ['front', 'rear']) == []
    with pytest.raises(ValueError, match='are for a single camera'):
        names['remappings'](given, ['front', 'rear'])


@pytest.mark.parametrize(('text', 'cameras'), [
    ('/**:\n  ros__parameters:\n    cameras: [front, rear]\n', ['front', 'rear']),
    ('/robot1/depth_node:\n  ros__parameters:\n    cameras: [front]\n', ['front']),
    ('robot1:\n  depth_node:\n    ros__parameters:\n      cameras: [front]\n', ['front']),
    ('/**:\n  ros__parameters:\n    cameras: front\n', ['front']),
    ('depth_node:\n  ros__parameters:\n    device: cpu\n', ['camera']),
    ('/**:\n  ros__parameters:\n', ['camera']),
    ('', ['camera'])])
def test_the_cameras_of_a_parameter_file_are_found_in_any_namespace(tmp_path, text, cameras):
    file = tmp_path / 'parameters.yaml'
    file.write_text(text)
    assert definitions(DEPTH, 'read_cameras')['read_cameras'](file) == cameras


@pytest.mark.parametrize('path', [DEPTH, REPLAY])
def test_launch_files_can_be_loaded(path):
    """If launch is not installed, only check that generate_launch_description exists."""
    if importlib.util.find_spec('launch_ros') is None:
        definitions(path, 'generate_launch_description')
        return
    spec = importlib.util.spec_from_file_location('launch_file', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    assert set(module.ARGUMENTS) <= {argument.name for argument
                                     in description.get_launch_arguments()}


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


def test_the_dds_profile_is_set_for_old_and_new_fast_dds():
    assert definitions(DEPTH, 'PROFILE_VARIABLES')['PROFILE_VARIABLES'] == (
        'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')


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
