"""
Hold the shipped configurations of Nav2, MoveIt and depthimage_to_laserscan against their readers.

The tables of keys and types are those that the readers declare, on Jazzy: nav2_costmap_2d's
costmap_2d_ros.cpp, obstacle_layer.cpp, voxel_layer.cpp, inflation_layer.cpp, static_layer.cpp;
nav2_collision_monitor's collision_monitor_node.cpp, polygon.cpp, source.cpp, pointcloud.cpp;
moveit_ros_perception's pointcloud_octomap_updater.cpp and moveit_ros_occupancy_map_monitor's
occupancy_map_monitor_middleware_handle.cpp; DepthImageToLaserScanROS.cpp.
"""

from __future__ import annotations

import json
from pathlib import Path
import re

import pytest
import yaml

from marigold_ros.ros.camera_output import INFO_TOPICS, TOPICS
from marigold_ros.ros.parameters import settings_from_parameters

ROOT = Path(__file__).parents[1]
SCENE = json.loads((ROOT / 'sample' / 'scene.json').read_text())
DEFAULTS = settings_from_parameters({})
CAMERA = DEFAULTS.cameras[0]
CLOUD = f'/{CAMERA}/{TOPICS["points"]}'

SOURCE = {
    'topic': str, 'sensor_frame': str, 'observation_persistence': float,
    'expected_update_rate': float, 'data_type': str, 'min_obstacle_height': float,
    'max_obstacle_height': float, 'inf_is_valid': bool, 'marking': bool, 'clearing': bool,
    'obstacle_max_range': float, 'obstacle_min_range': float, 'raytrace_max_range': float,
    'raytrace_min_range': float}
OBSTACLE_LAYER = {
    'plugin': str, 'enabled': bool, 'footprint_clearing_enabled': bool,
    'min_obstacle_height': float, 'max_obstacle_height': float, 'combination_method': int,
    'observation_sources': str, 'depth_cloud': SOURCE, 'lidar': SOURCE}
VOXEL_LAYER = {
    **OBSTACLE_LAYER, 'z_voxels': int, 'origin_z': float, 'z_resolution': float,
    'unknown_threshold': int, 'mark_threshold': int, 'publish_voxel_map': bool}
COSTMAP = {
    'global_frame': str, 'robot_base_frame': str, 'rolling_window': bool, 'width': int,
    'height': int, 'resolution': float, 'update_frequency': float, 'publish_frequency': float,
    'robot_radius': float, 'track_unknown_space': bool, 'transform_tolerance': float,
    'plugins': list, 'voxel_layer': VOXEL_LAYER, 'obstacle_layer': OBSTACLE_LAYER,
    'inflation_layer': {'plugin': str, 'enabled': bool, 'inflation_radius': float,
                        'cost_scaling_factor': float},
    'static_layer': {'plugin': str, 'enabled': bool, 'map_subscribe_transient_local': bool}}
POLYGON = {
    'type': str, 'points': str, 'action_type': str, 'min_points': int, 'visualize': bool,
    'polygon_pub_topic': str, 'enabled': bool, 'slowdown_ratio': float}
COLLISION_MONITOR = {
    'base_frame_id': str, 'odom_frame_id': str, 'cmd_vel_in_topic': str, 'cmd_vel_out_topic': str,
    'state_topic': str, 'transform_tolerance': float, 'source_timeout': float,
    'base_shift_correction': bool, 'stop_pub_timeout': float, 'polygons': list,
    'PolygonStop': POLYGON, 'PolygonSlow': POLYGON, 'observation_sources': list,
    'depth_cloud': {'type': str, 'topic': str, 'enabled': bool, 'source_timeout': float,
                    'min_height': float, 'max_height': float, 'min_range': float,
                    'use_global_height': bool}}
POINT_CLOUD_UPDATER = {
    'sensor_plugin': str, 'point_cloud_topic': str, 'max_range': float, 'padding_offset': float,
    'padding_scale': float, 'point_subsample': int, 'max_update_rate': float,
    'filtered_cloud_topic': str}
MOVEIT = {'sensors': list, 'depth_cloud': POINT_CLOUD_UPDATER, 'octomap_frame': str,
          'octomap_resolution': float}
LASERSCAN = {'scan_time': float, 'range_min': float, 'range_max': float, 'scan_height': int,
             'output_frame': str}


def load(name: str, *path: str) -> dict:
    """Read a configuration and return the parameters below a path of keys."""
    tree = yaml.safe_load((ROOT / 'config' / f'{name}.yaml').read_text())
    for key in path:
        tree = tree[key]
    return tree


# Name of a costmap -> its file and its node.
COSTMAPS = {'local': ('nav2_costmap', 'local_costmap'),
            'global': ('nav2_costmap', 'global_costmap'),
            'mapless': ('nav2_costmap_mapless', 'global_costmap'),
            'lidar, local': ('nav2_costmap_lidar', 'local_costmap'),
            'lidar, global': ('nav2_costmap_lidar', 'global_costmap')}


def costmap(name: str) -> dict:
    """Read the parameters of a costmap, below the node's name in its namespace."""
    file, node = COSTMAPS[name]
    return load(file, node, node, 'ros__parameters')


LAYERS = [('local', 'voxel_layer', 'nav2_costmap_2d::VoxelLayer'),
          ('global', 'obstacle_layer', 'nav2_costmap_2d::ObstacleLayer'),
          ('mapless', 'obstacle_layer', 'nav2_costmap_2d::ObstacleLayer')]
ROLLING = [('local', 'voxel_layer'), ('mapless', 'obstacle_layer')]
FILES = {
    **{name: (costmap(name), COSTMAP) for name in COSTMAPS},
    'collision_monitor': (
        load('collision_monitor', 'collision_monitor', 'ros__parameters'), COLLISION_MONITOR),
    'moveit_sensors_3d': (load('moveit_sensors_3d'), MOVEIT),
    'depthimage_to_laserscan': (
        load('depthimage_to_laserscan', 'depthimage_to_laserscan', 'ros__parameters'), LASERSCAN)}


@pytest.mark.parametrize('name', FILES)
def test_every_key_is_declared_by_its_reader_with_its_type(name):
    def compare(values: dict, known: dict, path: str) -> None:
        for key, value in values.items():
            assert key in known, f'{path}.{key}'
            if isinstance(known[key], dict):
                compare(value, known[key], f'{path}.{key}')
            else:  # ROS does not take 1 for 1.0, nor the other way round
                assert type(value) is known[key], f'{path}.{key}: {value!r}'
    compare(*FILES[name], name)


@pytest.mark.parametrize(('name', 'layer', 'plugin'), LAYERS)
def test_the_costmap_uses_the_layer_and_the_layer_its_source(name, layer, plugin):
    settings = costmap(name)
    assert settings[layer]['plugin'] == plugin
    assert layer in settings['plugins']
    assert set(settings['plugins']) == {key for key, value in settings.items()
                                        if isinstance(value, dict)}
    assert settings['plugins'][-1] == 'inflation_layer'  # it inflates what stands before it
    assert settings[layer]['observation_sources'].split() == ['depth_cloud']


@pytest.mark.parametrize(('name', 'layer', 'plugin'), LAYERS)
def test_the_source_marks_and_clears_with_the_nodes_cloud(name, layer, plugin):
    source = costmap(name)[layer]['depth_cloud']
    assert source['topic'] == CLOUD
    assert source['data_type'] == 'PointCloud2'  # default LaserScan
    assert source['marking'] and source['clearing']
    # Absolute, for Nav2 puts a relative topic below the costmap's namespace.
    assert source['topic'].startswith('/')


@pytest.mark.parametrize(('name', 'layer', 'plugin'), LAYERS)
def test_heights_let_floor_rays_clear_and_only_obstacles_mark(name, layer, plugin):
    settings = costmap(name)[layer]
    source = settings['depth_cloud']
    # The source's filter also discards clearing rays, so it lies below the floor; not so far that
    # a wrong scale would clear through it.
    assert -0.5 <= source['min_obstacle_height'] < 0
    # Its maximum is 0 by default, which drops everything.
    assert source['max_obstacle_height'] >= settings['max_obstacle_height'] > 0.5
    # What marks is above the floor's noise, and below the robot's camera.
    assert 0.05 <= settings['min_obstacle_height'] < SCENE['camera']['height_m']


@pytest.mark.parametrize(('name', 'layer', 'plugin'), LAYERS)
def test_ranges_clear_as_far_as_they_mark(name, layer, plugin):
    source = costmap(name)[layer]['depth_cloud']
    assert source['raytrace_max_range'] >= source['obstacle_max_range']
    assert source['raytrace_min_range'] <= source['obstacle_min_range'] < 0.5
    assert source['obstacle_min_range'] >= DEFAULTS.min_depth_m
    assert source['raytrace_max_range'] <= DEFAULTS.max_depth_m
    # The filter of flying pixels loses the floor at height / tan(angle): 10 m for the sample.
    assert source['raytrace_max_range'] < SCENE['camera']['height_m'] / 0.0349
    # Seconds, and longer than a frame may take.
    assert DEFAULTS.latency_cap_ms / 1e3 < source['expected_update_rate'] <= 2.0


@pytest.mark.parametrize(('name', 'layer'), ROLLING)
def test_a_rolling_costmap_holds_what_the_source_reaches(name, layer):
    settings = costmap(name)
    assert settings['rolling_window']
    reach = settings[layer]['depth_cloud']['raytrace_max_range']
    assert min(settings['width'], settings['height']) / 2 >= reach


@pytest.mark.parametrize('where', ['local', 'global'])
def test_beside_a_lidar_both_mark_and_the_rest_is_as_without_it(where):
    settings, without = costmap(f'lidar, {where}'), costmap(where)
    layer = 'voxel_layer' if where == 'local' else 'obstacle_layer'
    found, plain = settings.pop(layer), without.pop(layer)
    assert settings == without
    lidar, camera = found.pop('lidar'), found.pop('depth_cloud')
    assert found.pop('observation_sources').split() == ['lidar', 'depth_cloud']
    cloud = plain.pop('depth_cloud')
    assert plain.pop('observation_sources') == 'depth_cloud'
    assert found == plain
    assert lidar['marking'] and lidar['clearing'] and camera['marking']
    # In two dimensions the rays of the camera would clear what the lidar marks.
    assert camera['clearing'] == (where == 'local')
    assert camera['obstacle_max_range'] < lidar['obstacle_max_range'] < lidar['raytrace_max_range']
    assert {**camera, 'clearing': True, 'obstacle_max_range': 3.0} == cloud


def test_the_mapless_costmap_needs_neither_a_map_nor_its_frame():
    settings, mapped = costmap('mapless'), costmap('global')
    assert settings['global_frame'] == costmap('local')['global_frame'] == 'odom'
    assert 'static_layer' in mapped['plugins'] and 'static_layer' not in settings['plugins']
    assert not mapped.get('rolling_window', False)  # the map gives its size
    # Apart from that the two are the same.
    differ = {'global_frame', 'rolling_window', 'width', 'height', 'plugins', 'static_layer'}
    assert ({key: value for key, value in settings.items() if key not in differ}
            == {key: value for key, value in mapped.items() if key not in differ})


def test_what_is_unseen_is_unknown_to_the_planner_and_free_to_the_controller():
    assert not costmap('local')['track_unknown_space']
    assert costmap('global')['track_unknown_space'] and costmap('mapless')['track_unknown_space']


def test_the_voxel_grid_has_at_most_16_voxels():
    layer = costmap('local')['voxel_layer']
    assert layer['z_voxels'] <= 16
    top = layer['origin_z'] + layer['z_voxels'] * layer['z_resolution']
    assert layer['origin_z'] <= 0 < SCENE['camera']['height_m'] < top
    assert layer['max_obstacle_height'] <= top + 1e-9


def test_the_cloud_has_5000_to_20000_points_at_vga():
    stride = DEFAULTS.point_stride
    assert 5_000 <= -(-640 // stride) * -(-480 // stride) <= 20_000


def test_the_collision_monitors_timeout_exceeds_the_period_of_frames():
    settings, _ = FILES['collision_monitor']
    source = settings['depth_cloud']
    assert settings['observation_sources'] == ['depth_cloud']
    assert (source['type'], source['topic']) == ('pointcloud', CLOUD)
    assert settings['source_timeout'] >= 5 * DEFAULTS.latency_cap_ms / 1e3
    assert settings['source_timeout'] >= 2 * DEFAULTS.max_age_s
    assert 0.05 <= source['min_height'] < source['max_height']
    assert source['min_range'] >= DEFAULTS.min_depth_m


@pytest.mark.parametrize('name', ['PolygonStop', 'PolygonSlow'])
def test_a_polygon_is_ahead_and_needs_more_than_a_point(name):
    settings, _ = FILES['collision_monitor']
    assert name in settings['polygons']
    polygon = settings[name]
    corners = json.loads(polygon['points'])  # a string that Nav2 parses
    assert polygon['type'] == 'polygon' and len(corners) >= 3
    assert all(len(corner) == 2 for corner in corners)
    assert min(x for x, _ in corners) >= 0 < max(x for x, _ in corners)
    assert polygon['min_points'] >= 5
    assert polygon['action_type'] in ('stop', 'slowdown')
    assert (polygon['action_type'] == 'slowdown') == ('slowdown_ratio' in polygon)


def test_moveit_gets_every_key_that_the_updater_asks_for():
    settings, _ = FILES['moveit_sensors_3d']
    assert settings['sensors'] == ['depth_cloud']
    updater = settings['depth_cloud']
    assert set(updater) == set(POINT_CLOUD_UPDATER)
    assert updater['sensor_plugin'] == 'occupancy_map_monitor/PointCloudOctomapUpdater'
    assert updater['point_cloud_topic'] == CLOUD
    assert 0 < updater['max_range'] <= DEFAULTS.max_depth_m
    assert updater['point_subsample'] == 1  # the node strides already
    assert updater['padding_scale'] >= 1 and updater['max_update_rate'] > 0
    assert not settings['octomap_frame'].endswith('optical_frame')


def test_the_scans_frame_is_not_optical():
    settings, _ = FILES['depthimage_to_laserscan']
    assert settings['output_frame'] and not settings['output_frame'].endswith('optical_frame')
    assert DEFAULTS.min_depth_m <= settings['range_min'] < settings['range_max']
    assert settings['range_max'] <= DEFAULTS.max_depth_m
    assert settings['scan_height'] < 480
    expected = {'depth': f'/{CAMERA}/{TOPICS["depth"]}',
                'depth_camera_info': f'/{CAMERA}/{INFO_TOPICS["depth"]}'}
    for text in ((ROOT / 'config' / 'depthimage_to_laserscan.yaml').read_text(),
                 (ROOT / 'docs' / 'moveit-and-others.md').read_text()):
        assert dict(re.findall(r'-r (depth\w*):=(\S+)', text)) == expected
