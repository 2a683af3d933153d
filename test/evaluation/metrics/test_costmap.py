"""The costmap marks and clears cells as Nav2's obstacle layer does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from marigold_ros.depth.errors import ConfigError, InputError
from marigold_ros.evaluation.metrics.costmap import (
    FREE,
    LayerConfig,
    LETHAL,
    Observation,
    ObstacleLayer,
    read_layer_config,
    UNKNOWN,
)

SHIPPED = Path(__file__).parents[3] / 'config' / 'nav2_costmap.yaml'
CONFIG = LayerConfig(resolution=0.1, min_obstacle_height=0.1, max_obstacle_height=1.5,
                     source_min_height=-0.2, source_max_height=2.0, obstacle_min_range=0.2,
                     obstacle_max_range=1.0, raytrace_max_range=1.5)
ORIGIN = np.array([0.05, 0.05, 0.4])


def layer(**changes: float) -> ObstacleLayer:
    """Return a map of 2 m by 1 m with 20 columns and 10 rows."""
    return ObstacleLayer(replace(CONFIG, **changes), (0.0, 0.0), (2.0, 1.0))


def cloud(*points: tuple[float, float, float]) -> np.ndarray:
    return np.array(points, np.float32)


def observation(*points: tuple[float, float, float], origin=ORIGIN, **changes) -> Observation:
    return Observation(cloud(*points), np.array(origin), replace(CONFIG, **changes))


def test_a_point_marks_its_cell_and_clears_the_cells_before_it():
    grid = layer()
    grid.update(cloud((0.55, 0.05, 0.5)), ORIGIN)
    assert grid.costs.shape == (10, 20)
    assert grid.costs[0, :5].tolist() == [FREE] * 5 and grid.costs[0, 5] == LETHAL
    assert (grid.costs[0, 6:] == UNKNOWN).all() and (grid.costs[1:] == UNKNOWN).all()


@pytest.mark.parametrize(('z', 'marks', 'clears'), [
    (-0.3, False, False), (-0.1, False, True), (0.09, False, True), (0.11, True, True),
    (1.49, True, True), (1.51, False, True), (2.1, False, False), (np.nan, False, False)])
def test_height_limits_of_marking_and_clearing(z, marks, clears):
    grid = layer()
    grid.update(cloud((0.55, 0.05, z)), ORIGIN)
    assert (grid.costs[0, 5] == LETHAL) == marks
    assert (grid.costs[0, 4] == FREE) == clears


@pytest.mark.parametrize(('x', 'marks'), [(0.15, False), (0.35, True), (1.0, True), (1.15, False)])
def test_only_points_within_the_obstacle_range_mark(x, marks):
    grid = layer()
    grid.update(cloud((x, 0.05, 0.5)), ORIGIN)
    assert (grid.costs == LETHAL).any() == marks


def test_rays_clear_old_marks_up_to_the_raytrace_range():
    grid = layer()
    grid.costs[0] = LETHAL
    grid.update(cloud((0.95, 0.05, 0.5), (1.95, 0.05, 0.0)), ORIGIN)
    # 1.5 m are 15 cells beyond the sensor's own.
    assert (grid.costs[0] == LETHAL).nonzero()[0].tolist() == [9, 16, 17, 18, 19]


def test_rays_that_leave_the_map_clear_up_to_its_border():
    grid = layer(raytrace_max_range=9.0)
    grid.update(cloud((0.05, 50.0, 0.0), (90.0, 0.05, 0.0), (-3.0, -3.0, 0.0)), ORIGIN)
    assert (grid.costs[:, 0] == FREE).all() and (grid.costs[0] == FREE).all()
    assert (grid.costs[1:, 1:] == UNKNOWN).all()


def test_a_diagonal_ray_follows_bresenham():
    grid = layer()
    grid.update(cloud((0.75, 0.35, 0.0)), ORIGIN)
    # 7 cells right and 3 up: the error starts at 7 // 2 and a row is climbed when it reaches 7:
    # 3, 6, 9 -> 2, 5, 8 -> 1, 4, 7 -> 0.
    rows, columns = (grid.costs == FREE).nonzero()
    assert sorted(zip(columns.tolist(), rows.tolist())) == [
        (0, 0), (1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 3)]


@pytest.mark.parametrize('order', [1, -1])
def test_the_clouds_of_all_sources_clear_before_any_marks(order):
    """The ray of one passes through the cell that the other marks, whichever comes first."""
    near, far = (observation((x, 0.05, 0.5)) for x in (0.55, 0.95))
    grid = layer()
    grid.costs[0, 3] = LETHAL
    grid.update_from([near, far][::order])
    assert (grid.costs[0] == LETHAL).nonzero()[0].tolist() == [5, 9]
    assert (grid.costs[0, [0, 1, 2, 3, 4, 6, 7, 8]] == FREE).all()


def test_each_source_clears_from_its_own_place():
    grid = layer()
    grid.update_from([observation((0.05, 0.55, 0.5)),
                      observation((1.55, 0.55, 0.5), origin=(1.55, 0.05, 0.4))])
    assert (grid.costs[:5, [0, 15]] == FREE).all() and (grid.costs[5, [0, 15]] == LETHAL).all()
    assert (grid.costs[:, 1:15] == UNKNOWN).all()


def test_one_sensor_outside_the_map_changes_nothing():
    grid = layer()
    with pytest.raises(InputError, match='inside the map; got'):
        grid.update_from([observation((0.55, 0.05, 0.5)),
                          observation((0.5, 0.5, 0.5), origin=(-1.0, 0.0, 0.4))])
    assert (grid.costs == UNKNOWN).all()


def test_each_source_has_its_own_heights_and_ranges():
    """The second one sees nothing above 0.4 m, and clears and marks up to 0.5 m only."""
    grid, own = layer(), {'source_max_height': 0.4, 'obstacle_max_range': 0.5,
                          'raytrace_max_range': 0.5}
    grid.update_from([observation((0.55, 0.05, 0.5)),
                      observation((0.05, 0.35, 0.5), (0.85, 0.85, 0.2), **own)])
    assert np.argwhere(grid.costs == LETHAL).tolist() == [[0, 5]]
    # 0.5 m are 3 cells along a diagonal.
    assert [grid.costs[i, i] for i in range(5)] == [FREE] * 4 + [UNKNOWN]


def test_a_sensor_outside_the_map_is_rejected():
    with pytest.raises(InputError, match='inside the map; got'):
        layer().update(cloud((0.5, 0.5, 0.5)), np.array([-1.0, 0.0, 0.4]))


def test_the_shipped_configuration_is_read():
    config = read_layer_config(SHIPPED)
    assert config == LayerConfig(0.05, 0.1, 1.6, -0.2, 2.0, 0.2, 3.0, 4.0)


def test_one_of_several_sources_is_read(tmp_path):
    path = tmp_path / 'nav2.yaml'
    path.write_text(yaml.safe_dump({'global_costmap': {'global_costmap': {'ros__parameters': {
        'resolution': 0.1, 'obstacle_layer': {
            'min_obstacle_height': 0.1, 'max_obstacle_height': 1.5,
            'observation_sources': 'near far', **{name: {
                'min_obstacle_height': -0.2, 'max_obstacle_height': 2.0, 'obstacle_min_range': 0.2,
                'obstacle_max_range': range_m, 'raytrace_max_range': range_m + 0.5,
                'clearing': name == 'near'}
                for name, range_m in (('near', 1.0), ('far', 5.0))}}}}}}))
    assert read_layer_config(path, 'near') == CONFIG
    # This one does not clear.
    assert read_layer_config(path, 'far') == replace(
        CONFIG, obstacle_max_range=5.0, raytrace_max_range=0.0)


@pytest.mark.parametrize(('old', 'new', 'match'), [
    ('obstacle_max_range: 3.0', '', 'obstacle_max_range'), ('obstacle_layer:', 'other:', 'layer'),
    ('depth_cloud', 'lidar', "KeyError: 'depth_cloud in observation_sources'"),
    ('raytrace_min_range: 0.0', 'raytrace_min_range: 0.3', 'must be 0 .*; got 0.3')])
def test_an_incomplete_parameter_file_is_rejected(old, new, match, tmp_path):
    path = tmp_path / 'nav2.yaml'
    path.write_text(SHIPPED.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=match):
        read_layer_config(path)


def test_a_source_that_does_not_clear_leaves_what_another_marks():
    """The camera sees through what the lidar has marked."""
    origin = np.array([0.05, 0.05, 0.4])
    layer = ObstacleLayer(CONFIG, (0.0, 0.0), (0.8, 0.1))
    near, far = (np.array([[x, 0.05, 0.5]], np.float32) for x in (0.35, 0.65))
    for raytrace_max_range, kept in ((0.0, True), (1.5, False)):
        layer.update(near, origin)
        layer.update_from([Observation(far, origin, replace(
            CONFIG, raytrace_max_range=raytrace_max_range))])
        assert (layer.costs[0, 3] == LETHAL) == kept and layer.costs[0, 6] == LETHAL
