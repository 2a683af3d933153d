"""Validation of the parameters `scale.*`."""

from __future__ import annotations

import pytest

from marigold_ros.depth.errors import ConfigError
from marigold_ros.metric.config import ScaleConfig


@pytest.mark.parametrize('source, low, high, match', [
    ('lidar', None, None, r"`scale.sources` must be .* none, fixed, .*; got \['lidar'\]"),
    ('fixed', None, 8.0, '`scale.min_depth_m` and `scale.max_depth_m` must be set .* got None'),
    ('fixed', 0.5, None, 'must be set in metres .* got 0.5 and None'),
    ('fixed', 0.0, 8.0, '`scale.min_depth_m` must be finite and above 0 m; got 0.0'),
    ('fixed', float('nan'), 8.0, '`scale.min_depth_m` .* got nan'),
    ('fixed', 2.0, 2.0, r'`scale.max_depth_m` .* \(2.0 m\); got 2.0'),
    ('fixed', 2.0, float('inf'), '`scale.max_depth_m` must be finite'),
])
def test_a_validation_error_names_the_parameter(source, low, high, match):
    with pytest.raises(ConfigError, match=match):
        ScaleConfig((source,), low, high)


@pytest.mark.parametrize('sources, match', [
    ((), r'a list with at least one source; got \[\]'),
    (('cloud', 'cloud'), r"each source occurs once; got \['cloud', 'cloud'\]"),
    (('cloud', 'fixed'), r"none and fixed stand alone; got \['cloud', 'fixed'\]"),
    (('none', 'motion'), 'none and fixed stand alone')])
def test_sources_are_a_list_of_different_ones_that_measure_or_one_that_does_not(sources, match):
    with pytest.raises(ConfigError, match=f'`scale.sources` must be .*{match}'):
        ScaleConfig(sources, 1.0, 2.0)


@pytest.mark.parametrize('changes, match', [
    ({'extrinsics': {'motion': '0 0 0 0 0 0'}}, '`scale.motion.extrinsics` must be of a source'),
    ({'extrinsics': {'scan': '0 0 0'}}, '`scale.scan.extrinsics` must be auto or six numbers'),
    ({'weights': {'fixed': 2.0}}, '`scale.fixed.weight` must be of a source that is'),
    ({'weights': {'cloud': 0.0}}, '`scale.cloud.weight` must be 0.01 to 100; got 0.0'),
    ({'weights': {'scan': float('nan')}}, '`scale.scan.weight` must be 0.01 to 100; got nan')])
def test_extrinsics_and_weights_are_checked_by_source(changes, match):
    with pytest.raises(ConfigError, match=match):
        ScaleConfig(('cloud', 'scan'), **changes)


def test_a_source_has_weight_1_unless_it_is_set():
    config = ScaleConfig(('cloud', 'scan'), weights={'scan': 2.0})
    assert (config.weight('cloud'), config.weight('scan')) == (1.0, 2.0)


SET = {'camera_height_m': 1.0, 'camera_pitch_deg': 0.0, 'camera_roll_deg': 0.0}


@pytest.mark.parametrize('sources, changes, tilt, transforms', [
    (('cloud', 'scan'), {'extrinsics': {'cloud': '0 0 0 0 0 0'}}, False, True),
    (('cloud',), {'extrinsics': {'cloud': '0 0 0 0 0 0'}}, False, False),
    (('ground_plane',), SET, False, False),
    (('ground_plane',), {'camera_height_m': 1.0}, True, True),
    (('motion',), {}, False, True), (('motion',), {'camera_height_m': 1.0}, True, True),
    (('depth',), {'camera_height_m': 1.0, 'extrinsics': {'depth': '0 0 0 0 0 0'}}, False, False)])
def test_tf_is_needed_for_what_no_parameter_sets(sources, changes, tilt, transforms):
    config = ScaleConfig(sources, **changes)
    assert (config.needs_tilt, config.needs_transforms) == (tilt, transforms)
