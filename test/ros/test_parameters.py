"""The parameter table: validation, defaults, and its copies in YAML and documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from rclpy.parameter import Parameter
import yaml

from marigold_ros.depth.errors import ConfigError
from marigold_ros.geometry.filters import DepthFilter
from marigold_ros.metric.config import MEASURED_SOURCES, REFERENCE_SOURCES, ScaleConfig
from marigold_ros.metric.outputs import PointFilter
from marigold_ros.ros.parameters import (
    declare_parameters,
    describe_unknown_parameters,
    find_rejection_reason,
    format_parameter_table,
    format_yaml,
    settings_from_parameters,
    TABLE,
)

ROOT = Path(__file__).parents[2]
DEFAULTS = {row.name: list(row.default) if row.kind is tuple else row.default for row in TABLE}


def flatten(tree: dict, prefix: str = '') -> dict:
    """Join the names of nested parameters with dots, as ROS does."""
    flat = {}
    for name, value in tree.items():
        flat.update(flatten(value, f'{prefix}{name}.') if isinstance(value, dict)
                    else {prefix + name: value})
    return flat


def test_defaults_are_those_of_the_node_interface():
    assert DEFAULTS == {
        'cameras': ['camera'], 'input_transport': 'auto', 'input_rectified': 'auto',
        'checkpoint': 'tiny', 'device': 'auto', 'dtype': 'auto', 'processing_resolution': 'auto',
        'upsampling': 'guided', 'compile': False, 'ensemble_size': 1, 'step_policy': 'novelty',
        'complexity_measure': 'entropy',
        'min_inference_steps': 0, 'max_inference_steps': 4, 'complexity_min': 'auto',
        'alpha': 'auto', 'latency_cap_ms': 200.0, 'max_carry_s': 2.0, 'odom_frame': 'odom',
        'max_age_s': 1.0, 'max_input_pixels': 16_000_000,
        'scale.sources': ['none'], 'scale.min_depth_m': 'unset', 'scale.max_depth_m': 'unset',
        'scale.camera_height_m': 'unset', 'scale.camera_pitch_deg': 'auto',
        'scale.camera_roll_deg': 'auto', 'scale.base_frame': 'base_link',
        'scale.max_change_per_s': 0.3, 'scale.hold_s': 1.0, 'scale.expire_s': 10.0,
        'scale.depth.extrinsics': 'auto', 'scale.cloud.extrinsics': 'auto',
        'scale.scan.extrinsics': 'auto', 'scale.depth.weight': 1.0, 'scale.cloud.weight': 1.0,
        'scale.scan.weight': 1.0, 'scale.ground_plane.weight': 1.0, 'scale.motion.weight': 1.0,
        'scale.motion.refine_rotation': False,
        'min_depth_m': 0.1, 'max_depth_m': 20.0, 'point_stride': 4,
        'points_min_surface_angle_deg': 25.0, 'points_confidence_min': 0.0,
        'max_relative_depth': 1.0, 'confidence_min': 0.0, 'min_surface_angle_deg': 2.0,
        'depth_encoding': '32FC1', 'autostart': True}


def test_defaults_without_ros_are_those_of_the_node():
    settings = settings_from_parameters({})
    assert settings.depth_filter() == DepthFilter()
    assert settings.scale_config() == ScaleConfig(
        weights=dict.fromkeys(MEASURED_SOURCES, ScaleConfig().weight('cloud')))
    assert settings.point_filter() == PointFilter()


def test_depth_yaml_contains_the_defaults_of_the_table():
    text = (ROOT / 'config' / 'depth.yaml').read_text()
    assert text == format_yaml()
    assert flatten(yaml.safe_load(text)['/**']['ros__parameters']) == DEFAULTS


def test_demo_yaml_sets_existing_parameters_to_allowed_values():
    tree = yaml.safe_load((ROOT / 'config' / 'demo.yaml').read_text())
    values = flatten(tree['/**']['ros__parameters'])
    values.pop('use_sim_time')  # ROS's own
    assert set(values) <= set(DEFAULTS)
    assert settings_from_parameters(values).scale_sources == ('cloud', 'ground_plane')


def test_the_documentation_holds_the_table():
    page = (ROOT / 'docs' / 'topics-and-parameters.md').read_text()
    between = page.partition('<!-- parameters -->')[2].partition('<!-- /parameters -->')[0]
    assert between.strip() == format_parameter_table().strip()


def test_every_parameter_is_described_in_one_line():
    for row in TABLE:
        assert row.description and '\n' not in row.description and '|' not in row.description
        assert row.descriptor().description.startswith(row.description)


def test_keywords_are_parsed_as_none_and_integers_as_doubles():
    settings = settings_from_parameters(
        {'complexity_min': 'auto', 'alpha': 3, 'latency_cap_ms': 150})
    assert settings.complexity_min is None
    assert (settings.alpha, type(settings.alpha)) == (3.0, float)
    assert settings.step_policy_config().latency_cap_s == 0.15


def test_a_latency_cap_of_0_is_no_cap():
    settings = settings_from_parameters({'latency_cap_ms': 0.0})
    assert settings.step_policy_config().latency_cap_s is None


def test_the_steps_are_limited_to_those_useful_for_the_checkpoint():
    settings = settings_from_parameters({'min_inference_steps': 2, 'max_inference_steps': 4})
    config = settings.step_policy_config(max_useful_steps=1)
    assert (config.min_inference_steps, config.max_inference_steps) == (1, 1)


@pytest.mark.parametrize(('values', 'message'), [
    ({'max_inference_steps': 11}, r'must be int, 1 to 10 \(.* above 10 steps\); got 11'),
    ({'min_inference_steps': 3, 'max_inference_steps': 2}, 'at most max_inference_steps'),
    ({'ensemble_size': True}, '`ensemble_size` must be int, 1 to 20; got True'),
    ({'latency_cap_ms': float('nan')}, '`latency_cap_ms` must be double, 0 to 60000; got nan'),
    ({'latency_cap_ms': 'fast'}, "got 'fast'"),
    ({'checkpoint': 7}, '`checkpoint` must be string; got 7'),
    ({'depth_encoding': '64FC1'}, "must be string, one of 32FC1, 16UC1; got '64FC1'"),
    ({'processing_resolution': 100}, 'multiple of 8'),
    ({'cameras': []}, r'`cameras` must be string\[\] \(at least one name\); got \[\]'),
    ({'cameras': 'front'}, "`cameras` must be string.*; got 'front'"),
    ({'cameras': [1, 2]}, r'`cameras` must be string.*; got \[1, 2\]'),
    ({'cameras': ['front', 'front']}, 'must differ from each other'),
    ({'cameras': ['2nd']}, 'begin with a letter'),
    ({'min_depth_m': 20.0}, r'`min_depth_m` must be .* below max_depth_m \(20\); got 20'),
    ({'scale.sources': ['fixed']}, 'scale.min_depth_m.*must be set'),
    ({'scale.sources': ['fixed'], 'scale.min_depth_m': 3, 'scale.max_depth_m': 2},
     'scale.max_depth_m'),
    ({'scale.sources': ['cloud', 'ground_plane']},
     '`scale.camera_height_m` must be set in metres'),
    ({'scale.sources': ['motion'], 'odom_frame': ''},
     "`odom_frame` must name a coordinate frame for the scale source motion; got ''"),
    ({'scale.sources': 'cloud'}, r"`scale.sources` must be string\[\].*; got 'cloud'"),
    ({'scale.sources': []}, r'`scale.sources` must be string\[\], one of none, .*; got \[\]'),
    ({'scale.sources': ['cloud', 'radar']},
     r"one of none, fixed, depth, cloud, scan, ground_plane, motion; got \['cloud', 'radar'\]"),
    ({'scale.sources': ['none', 'cloud']}, 'a list in which none and fixed stand alone; got '),
    ({'scale.sources': ['cloud', 'fixed']}, 'a list in which none and fixed stand alone; got '),
    ({'scale.sources': ['cloud', 'scan', 'cloud']}, 'a list in which each source occurs once'),
    ({'scale.cloud.extrinsics': '0.1 0 0'},
     '`scale.cloud.extrinsics` must be .* six numbers x y z roll pitch yaw .* got .0.1 0 0'),
    ({'scale.motion.weight': 0.0}, '`scale.motion.weight` must be double, 0.01 to 100; got 0.0'),
    ({'scale.hold_s': 20}, r'`scale.hold_s` must be .* below scale.expire_s \(10 s\); got 20'),
    ({'scale.camera_pitch_deg': 'level'},
     "`scale.camera_pitch_deg` must be double or auto, -15 to 60; got 'level'"),
    ({'scale.camera_roll_deg': 20.0}, 'double or auto, -15 to 15; got 20.0'),
    ({'device': 'tpu'}, '`device`'),
])
def test_a_validation_error_names_rule_and_value(values, message):
    with pytest.raises(ConfigError, match=message):
        settings_from_parameters(values)


def test_an_angle_of_the_mount_is_a_number_or_from_tf():
    for value, expected in ((6, 6.0), ('auto', None)):
        config = settings_from_parameters({'scale.camera_pitch_deg': value}).scale_config()
        assert config.camera_pitch_deg == expected


def test_each_scale_source_has_its_own_extrinsics_and_weight():
    config = settings_from_parameters({
        **{f'scale.{source}.extrinsics': f'{x} 0 0 0 0 0'
           for x, source in enumerate(REFERENCE_SOURCES, 1)},
        **{f'scale.{source}.weight': 1 + x
           for x, source in enumerate(MEASURED_SOURCES)}}).scale_config()
    assert config.extrinsics == {
        'depth': '1 0 0 0 0 0', 'cloud': '2 0 0 0 0 0', 'scan': '3 0 0 0 0 0'}
    assert [config.weight(source) for source in MEASURED_SOURCES] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_extrinsics_of_a_source_that_are_auto_come_from_tf():
    config = settings_from_parameters({
        'scale.cloud.extrinsics': '1 0 0 0 0 0', 'scale.scan.extrinsics': 'auto'}).scale_config()
    assert set(config.extrinsics) == {'cloud'}


def test_configure_time_parameters_cannot_change_while_configured():
    for row in TABLE:
        other = {str: 'cpu', bool: not row.default, int: 8, tuple: ['front']}.get(row.kind, 1.0)
        if row.run_time or row.choices:
            continue
        reason = find_rejection_reason(DEFAULTS, [(row.name, other)], configured=True)
        assert reason.startswith(f'`{row.name}` can only change while')
        assert find_rejection_reason(DEFAULTS, [(row.name, other)], configured=False) == ''
        unchanged = [(row.name, DEFAULTS[row.name])]
        assert find_rejection_reason(DEFAULTS, unchanged, configured=True) == ''


def test_parameters_outside_the_table_are_ignored():
    assert find_rejection_reason(DEFAULTS, [('use_sim_time', True), ('qos_overrides./x', 'y')],
                                 configured=True) == ''


@pytest.mark.parametrize(('name', 'text'), [
    ('latency_cap', '`latency_cap` (did you mean `latency_cap_ms`?)'),
    ('scale.sourc', '`scale.sourc` (did you mean `scale.sources`?)'),
    ('scale_sources', '`scale_sources` (did you mean `scale.sources`?)'),
    ('wheel_radius', '`wheel_radius`'),
    ('qos_overrides./a/b.subscription.relability',
     '`qos_overrides./a/b.subscription.relability` '
     '(did you mean `qos_overrides./a/b.subscription.reliability`?)'),
    ('qos_overrides./a/b.subscription.depth', ''),
    ('qos_overrides./a/b.publisher_id.deadline', ''),
    ('device', ''), ('use_sim_time', '')])
def test_an_unknown_parameter_is_described_with_the_most_similar_one(name, text):
    assert describe_unknown_parameters(['cameras', name], [*DEFAULTS, 'use_sim_time']) == text


class FakeNode:
    """What a node is asked to declare_parameters."""

    def __init__(self, **given):
        self.rows = {}
        self._parameter_overrides = {name: Parameter(name, value=value)
                                     for name, value in given.items()}

    def declare_parameter(self, name, value, descriptor):
        self.rows[name] = (value, descriptor)


def test_an_invalid_initial_value_is_named_with_its_rule():
    with pytest.raises(ConfigError, match='`step_policy` must be string, one of novelty, comp'):
        declare_parameters(FakeNode(step_policy='guess'))


@pytest.mark.parametrize(('name', 'value', 'message'), [
    ('scale.source', 'cloud', "must be replaced by scale.sources, a list such as .*; got 'cloud'"),
    ('scale.extrinsics', 'auto', "must be replaced by scale.<source>.extrinsics, .*; got 'auto'")])
def test_a_parameter_of_an_earlier_version_is_named_with_what_has_replaced_it(
        name, value, message):
    with pytest.raises(ConfigError, match=f'^`{name}` {message}$'):
        declare_parameters(FakeNode(**{name: value}))


def test_descriptors_hold_ranges_types_and_time_of_effect():
    node = FakeNode()
    declare_parameters(node)
    assert {name: value for name, (value, _) in node.rows.items()} == DEFAULTS
    stride = node.rows['point_stride'][1]
    assert (stride.integer_range[0].from_value, stride.integer_range[0].to_value) == (1, 64)
    cap = node.rows['latency_cap_ms'][1]
    assert cap.floating_point_range[0].to_value == 60000.0
    assert cap.dynamic_typing and '[ms]' in cap.description
    assert 'takes effect at the next configure' in node.rows['device'][1].additional_constraints
    # The error message of a ROS range could not contain the reason.
    assert not node.rows['max_inference_steps'][1].integer_range
