"""Maps from above: found, missed and invented cells, parts of a recording, growing maps."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from marigold_ros.evaluation.metrics.costmap import FREE, LayerConfig, LETHAL, UNKNOWN
from marigold_ros.evaluation.metrics.obstacle_map import (
    CELL_FOUND,
    CELL_FREE,
    CELL_INVENTED,
    CELL_MISSED,
    CELL_UNKNOWN,
    ObstacleMap,
    ReferenceMap,
    SCENE,
)
from marigold_ros.evaluation.report.interactive import map_legend
from marigold_ros.metric.anchors import Anchors

LAYER = LayerConfig(resolution=0.1, min_obstacle_height=0.1, max_obstacle_height=1.5,
                    source_min_height=-0.2, source_max_height=2.0, obstacle_min_range=0.1,
                    obstacle_max_range=4.0, raytrace_max_range=4.0)
K = np.array([[100.0, 0, 50], [0, 100.0, 50], [0, 0, 1]])


def obstacle_map(low_m, costs, seen, marked, explained):
    """Return a map of one row of cells of 1 m."""
    costs, seen, marked, explained = (np.array([each])
                                      for each in (costs, seen, marked, explained))
    return ObstacleMap(np.array(low_m, float), 1.0, costs.astype(np.uint8), seen, marked,
                       explained.astype(bool), np.zeros((1, 2)), SCENE, (),
                       Counter({'chair': 1}), Counter({'chair': 2}))


def camera_at(x_m):
    """Return the pose of a camera 0.5 m above the floor that looks along x."""
    pose = np.eye(4)
    pose[:3, :3] = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    pose[:3, 3] = x_m, 0.05, 0.5
    return pose


def ahead(*distances_m):
    """Return points on the optical axis."""
    return np.array([[0, 0, each] for each in distances_m], np.float32)


def anchors(*distances_m):
    """Return the same points as a sensor measures them."""
    count = len(distances_m)
    return Anchors(np.full(count, 50), np.full(count, 50), np.array(distances_m, np.float32))


def test_marks_are_found_missed_or_invented():
    """The third cell was marked in half of the frames, and is cleared in the end."""
    cells = obstacle_map((0, 0), [LETHAL, LETHAL, FREE, FREE, UNKNOWN, FREE, UNKNOWN],
                         [9, 0, 2, 5, 1, 0, 0], [0, 0, 1, 2, 0, 0, 0],
                         [1, 0, 1, 1, 1, 1, 0]).cells()
    assert cells.tolist() == [[CELL_FOUND, CELL_INVENTED, CELL_FOUND, CELL_MISSED, CELL_MISSED,
                               CELL_FREE, CELL_UNKNOWN]]


def test_the_later_part_of_a_recording_overrides_what_it_has_seen():
    joined = obstacle_map((0, 0), [LETHAL, LETHAL, FREE], [0, 1, 0], [0, 0, 0], [1, 1, 1]).join(
        obstacle_map((1, 0), [FREE, UNKNOWN, LETHAL], [2, 0, 0], [1, 0, 0], [0, 0, 0]))
    assert joined.costs.tolist() == [[LETHAL, FREE, FREE, LETHAL]]
    assert joined.seen.tolist() == [[0, 3, 0, 0]] and joined.marked.tolist() == [[0, 1, 0, 0]]
    assert joined.cells().tolist() == [[CELL_FOUND, CELL_MISSED, CELL_FREE, CELL_INVENTED]]
    assert joined.low_m.tolist() == [0, 0] and len(joined.path_m) == 2
    assert (joined.found['chair'], joined.visible['chair']) == (2, 4)


def test_without_a_scene_our_marks_are_compared_with_those_of_a_sensor():
    """It sees two obstacles; ours has one of them in the next cell, and one that is not there."""
    compared = ReferenceMap('lidar', LAYER)
    compared.add(ahead(1.1, 3.1), anchors(1.0, 2.0), K, camera_at(0.05))
    found = compared.map()
    row = found.cells()[round((0.05 - found.low_m[1]) / 0.1 - 0.5)]
    at = {x_m: row[round((x_m - found.low_m[0]) / 0.1 - 0.5)] for x_m in (1.05, 1.15, 2.05, 3.15)}
    assert at == {1.05: CELL_FOUND, 1.15: CELL_FOUND, 2.05: CELL_MISSED, 3.15: CELL_INVENTED}


def test_the_map_grows_with_the_way_and_keeps_what_it_knows():
    compared = ReferenceMap('lidar', LAYER)
    for x_m in (0.05, -30.05, 30.05):
        compared.add(ahead(1.0), None, K, camera_at(x_m))
    found = compared.map()
    marked = found.low_m[0] + 0.1 * (np.flatnonzero((found.costs == LETHAL).any(axis=0)) + 0.5)
    assert marked == pytest.approx([-29.05, 1.05, 31.05])
    assert len(found.path_m) == 3 and found.outside == 0


def test_a_map_without_end_is_left_out_and_counted():
    compared = ReferenceMap('lidar', LAYER)
    compared.add(ahead(1.0), None, K, camera_at(0.0))
    compared.add(ahead(1.0), None, K, camera_at(1e6))
    found = compared.map()
    assert found.outside == 1 and max(found.costs.shape) <= 200
    assert '1 frames are outside the largest map' in map_legend(found)[-1][1]


@pytest.mark.parametrize(('far_m', 'near_m'), [(20_000.0, 387.0), (-20_000.0, -377.0)])
def test_parts_far_apart_join_to_a_map_of_limited_size(far_m, near_m):
    """The first part stays; the next one is left out, or cut off where it begins near it."""
    first, far, near = (ReferenceMap('lidar', LAYER) for _ in range(3))
    for part, x_m in ((first, 0.0), (far, far_m), (near, near_m)):
        part.add(ahead(1.0), anchors(1.0), K, camera_at(x_m))

    def join(later):
        joined = first.map().join(later.map())
        assert joined.costs.shape == (first.map().costs.shape[0], 4000)
        found = np.flatnonzero((joined.cells() == CELL_FOUND).any(axis=0))
        return (joined.low_m[0] + 0.1 * (found + 0.5)).tolist(), joined

    at_m, joined = join(far)
    assert at_m == pytest.approx([1.05])
    assert (len(joined.path_m), joined.outside) == (1, 1)
    at_m, joined = join(near)
    assert at_m == pytest.approx(sorted([1.05, near_m + 1.05]))
    assert (len(joined.path_m), joined.outside) == (2, 0)


def test_what_leads_in_marks_cells_but_is_no_part_of_the_way():
    compared = ReferenceMap('lidar', LAYER)
    compared.add(ahead(1.0), None, K, camera_at(-1.0), is_lead_in=True)
    compared.add(ahead(1.0), None, K, camera_at(1e6), is_lead_in=True)
    assert compared.map() is None
    compared.add(ahead(1.0), None, K, camera_at(0.5))
    found = compared.map()
    assert found.path_m.tolist() == [[0.5, 0.05]] and found.outside == 0
    assert (found.costs == LETHAL).sum() == 2


def test_without_a_frame_there_is_no_map():
    assert ReferenceMap('lidar', LAYER).map() is None
