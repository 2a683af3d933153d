"""Tests of the second drive: its events in images, depth and ranges, and the files that say so."""
from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from marigold_ros.data.bags.messages import read_stamp_ns
from marigold_ros.data.bags.reader import open_bag
from scenes import drive_bag, render, robot_path, second_drive, second_room
from scenes.drive_bag import robot_camera, stamp_ns
from scenes.moving import MovingScene
from scenes.robot_path import RobotState
from scenes.scene_types import Quality, RenderedFrame

COARSE = Quality(passes=1, edge_samples=0, texture_size=16)
SIZE = (64, 48)
SEED = 3
IMAGE, DEPTH = '/camera/image_raw/compressed', '/camera/depth_gt/image_rect/compressed'
SAMPLE = Path(__file__).parents[2] / 'sample'
EVENTS = {event.name: event for event in second_drive.EVENTS}
STATES = {round(state.t_s, 2): state for state in second_drive.drive_states()}


@pytest.fixture(scope='module')
def moving() -> MovingScene:
    return second_room.make_second_room(SEED, COARSE.texture_size)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write four frames in which the ball is seen."""
    out = tmp_path_factory.mktemp('drive')
    second_drive.write_second_drive(out, quality=COARSE, seed=SEED, size=SIZE,
                                    window_s=(9.0, 9.4))
    return out


def messages(folder: Path) -> dict[str, list[Any]]:
    """Return the messages of the bag by topic."""
    found = defaultdict(list)
    with open_bag(folder / 'parlour') as bag:
        for message in bag.messages():
            found[message.topic].append(bag.decode(message))
    return found


def render_at(moving: MovingScene, *times_s: float) -> list[RenderedFrame]:
    """Render the frames at some times as the drive does."""
    jobs = second_drive.plan_frames(moving, [STATES[t] for t in times_s], SEED)
    return [second_drive.render_frame(moving, job, SIZE, COARSE, SEED) for job in jobs]


def standing_depth_m(moving: MovingScene, state: RobotState) -> np.ndarray:
    """Return the depth of all that never moves."""
    return render.depth_along_z(moving.dark, robot_camera(state, *SIZE))


def distance_m(state: RobotState, low: Any, high: Any) -> float:
    """Return the distance on the floor from the robot's centre to a box."""
    at = np.array([state.x_m, state.y_m])
    return float(np.linalg.norm(np.maximum(np.maximum(low[:2] - at, at - high[:2]), 0)))


def test_the_events_follow_each_other_between_driving() -> None:
    names = ['driving_at_first', 'stop', 'ball', 'person', 'turn', 'door', 'lamp',
             'driving_at_last']
    assert list(EVENTS) == names
    ends = [(event.start_s, event.end_s) for event in EVENTS.values()]
    assert all(start < end for start, end in ends)
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    assert all(t in STATES for pair in ends for t in pair)
    assert EVENTS['stop'].end_s - EVENTS['stop'].start_s == pytest.approx(3)
    assert EVENTS['turn'].end_s - EVENTS['turn'].start_s >= 1.5


def test_the_robot_stands_turns_and_drives_as_the_events_say() -> None:
    def motion(*names: str) -> np.ndarray:
        return np.array([(s.speed_mps, s.yaw_rate) for s in STATES.values() if any(
            EVENTS[name].start_s <= s.t_s <= EVENTS[name].end_s for name in names)])

    assert not motion('stop', 'ball').any()
    np.testing.assert_allclose(motion('turn'), np.tile([0, np.pi / 3], (33, 1)))
    assert (motion('person', 'door', 'lamp', 'driving_at_last')[:, 0] > 0.1).all()
    assert motion('lamp')[:, 0].max() < 0.2


def test_the_robot_keeps_clear_of_all_things(moving: MovingScene) -> None:
    for state in STATES.values():
        boxes = [(o.min_m, o.max_m) for o in moving.dark.obstacles]
        boxes += [box for thing in moving.things
                  if (box := moving.bounds(thing.name, state.t_s)) is not None]
        assert min(distance_m(state, *np.array(box)) for box in boxes) > 0.25, state


def test_standing_frames_differ_by_the_sensor_noise_only(moving: MovingScene) -> None:
    first, *others = render_at(moving, EVENTS['stop'].start_s, 5.7, EVENTS['stop'].end_s)
    for other in others:
        np.testing.assert_array_equal(first.depth_m, other.depth_m)
        difference = other.rgb.astype(float) - first.rgb
        assert 0.1 < difference.std() < 1.5
        assert np.abs(difference).max() < 10
        assert abs(difference.mean()) < 0.1


def test_exposure_is_kept_while_the_robot_stands(moving: MovingScene) -> None:
    jobs = second_drive.plan_frames(moving, [STATES[t] for t in (5.5, 5.6, 5.7, 9.6)], SEED)
    assert jobs[0].gain != jobs[1].gain == jobs[2].gain == jobs[3].gain
    assert [job.light_number for job in jobs] == [55, 56, 56, 56]
    assert [job.number for job in jobs] == [55, 56, 57, 96]


def test_the_ball_rolls_through_image_and_depth(moving: MovingScene) -> None:
    early, late, gone = render_at(moving, 9.1, 10.1, 10.6)
    masks = [moving.visible_pixels('ball', t, robot_camera(STATES[t], *SIZE))
             for t in (9.1, 10.1)]
    columns = [np.flatnonzero(mask.any(0)).mean() for mask in masks]
    assert columns[0] > 45 and columns[1] < 19  # from the right to the left
    camera_x = STATES[9.1].x_m + robot_path.CAMERA_XYZ_M[0]
    for frame, mask in ((early, masks[0]), (late, masks[1])):
        assert (frame.depth_m[mask] < gone.depth_m[mask] - 0.01).all()
        np.testing.assert_array_equal(frame.depth_m[~mask], gone.depth_m[~mask])
        changed = np.abs(frame.rgb.astype(float) - gone.rgb).max(-1) > 10
        assert changed[mask].mean() > 0.7
        # It rolls 3.93 m from the wall; a degree of turn and pitch changes that by centimetres.
        assert frame.depth_m[mask].min() == pytest.approx(3.93 - camera_x - 0.11, abs=0.05)


def test_the_ball_turns_as_it_rolls(moving: MovingScene) -> None:
    """After a way of pi times its radius, its top is its bottom."""
    ball = next(thing for thing in moving.things if thing.name == 'ball')
    low, high = np.array(second_room.BALL_FROM), np.array(second_room.BALL_TO)
    half_turn_s = (ball.end_s - ball.start_s) * np.pi * 0.11 / np.linalg.norm(high - low)
    meshes = [ball.mesh_at(ball.start_s + t) for t in (0.0, half_turn_s / 2, half_turn_s)]
    top = meshes[0].triangles[..., 2].argmax()
    heights, ahead = ([float(m.triangles.reshape(-1, 3)[top, axis] - m.bounds.mean(0)[axis])
                       for m in meshes] for axis in (2, 1))
    np.testing.assert_allclose(heights, [0.11, 0, -0.11], atol=0.005)
    assert ahead[1] == pytest.approx(0.11, abs=0.005)  # a rolling top moves forwards


@pytest.mark.parametrize(('t_s', 'name'), [(9.6, 'ball'), (14.6, 'person'), (24.0, 'door')])
def test_scan_and_lidar_meet_the_things_where_they_are(moving: MovingScene, t_s: float,
                                                       name: str) -> None:
    state = STATES[t_s]
    low, high = np.asarray(moving.bounds(name, t_s))

    def measure(scene: Any) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        angle = np.radians(np.arange(360) - 180.0)
        ranges = robot_path.scan_ranges(scene, state, rng)
        beams = np.stack([np.cos(angle), np.sin(angle), 0 * angle], -1) * ranges[:, None]
        lidar = robot_path.lidar_points(scene, state, rng).reshape(-1, 3)
        mounts = (robot_path.SCANNER_XYZ_M, robot_path.LIDAR_XYZ_M)
        return [(p + mount) @ state.map_from_base[:3, :3].T + state.map_from_base[:3, 3]
                for p, mount in zip((beams, lidar), mounts)]

    for points, before in zip(measure(moving.at(t_s)), measure(moving.dark)):
        new = np.linalg.norm(points - before, axis=-1) > 0.05
        assert ((points[new] > low - 0.02) & (points[new] < high + 0.02)).all(-1).sum() >= 3


def test_the_person_walks_on_the_floor(moving: MovingScene) -> None:
    boxes = [np.asarray(moving.bounds('person', t)) for t in np.linspace(13, 16, 31)]
    assert all(box[0, 2] == pytest.approx(0, abs=0.02) for box in boxes)
    assert all(1.5 < box[1, 2] < 2 for box in boxes)
    depth = [np.ptp(box[:, 1]) for box in boxes]
    assert max(depth) > 0.6 and min(depth) < 0.45  # feet apart, feet together
    assert moving.bounds('person', 12.9) is moving.bounds('person', 16.1) is None


def test_a_crowd_walks_as_it_is_told_and_changes_nothing_else(moving: MovingScene) -> None:
    walk = second_room.Walk((6.0, 2.0), (2.0, 3.0), 1.0, 5.0)
    crowded = second_room.make_second_room(SEED, COARSE.texture_size, [walk])
    middle = np.mean(np.asarray(crowded.bounds('person_2', 3.0)), axis=0)
    assert middle[:2] == pytest.approx((4.0, 2.5), abs=0.15)
    assert crowded.bounds('person_2', 0.9) is crowded.bounds('person_2', 5.1) is None
    np.testing.assert_array_equal(crowded.dark.mesh.triangles, moving.dark.mesh.triangles)
    for name in ('person', 'ball', 'door'):
        for t_s in (9.0, 14.0, 24.0):
            np.testing.assert_array_equal(crowded.bounds(name, t_s), moving.bounds(name, t_s))


def test_the_door_opens_to_a_hall_behind_it(moving: MovingScene) -> None:
    camera = robot_camera(STATES[22.5], *SIZE)
    depths = [render.depth_along_z(moving.at(t), camera) for t in (20.0, 22.5, 23.7, 25.0, 26.0)]
    np.testing.assert_array_equal(depths[0], depths[1])
    np.testing.assert_array_equal(depths[3], depths[4])
    was_closed = moving.visible_pixels('door', 22.5, camera)
    opened = was_closed & ~moving.visible_pixels('door', 25.0, camera)
    assert opened.sum() > 0.8 * was_closed.sum() > 200
    # The floor of the hall begins at the door, its back is 1.8 m behind.
    behind = depths[3][opened] - depths[0][opened]
    assert (behind > 0).all() and 1.5 < behind.max() < 2.1
    assert not np.array_equal(depths[2], depths[1]) and not np.array_equal(depths[2], depths[3])


def test_the_lamp_changes_the_light_at_once_and_no_depth(moving: MovingScene) -> None:
    state = STATES[27.0]
    camera = robot_camera(state, *SIZE)
    (dark, dark_m), (lit, lit_m) = (render.render_radiance(moving.at(t), camera, COARSE)
                                    for t in (26.9, 27.0))
    np.testing.assert_array_equal(dark_m, lit_m)
    assert lit.mean() > 1.5 * dark.mean()
    assert (lit.mean(-1) > dark.mean(-1)).mean() > 0.95
    # The exposure follows: images are bright at first.
    jobs = second_drive.plan_frames(moving, [STATES[t] for t in (26.9, 27.0, 27.1, 29.0)], SEED)
    gains = [job.gain for job in jobs]
    assert gains == sorted(gains, reverse=True)
    assert gains[1] > 1.2 * drive_bag.metered_gain(moving.at(27.0), state)


def test_the_bag_has_the_topics_of_the_sample(folder: Path) -> None:
    with open_bag(folder / 'parlour') as bag, open_bag(SAMPLE / 'living_room') as sample:
        assert ({t.name: (t.msgtype, t.qos) for t in bag.topics}
                == {t.name: (t.msgtype, t.qos) for t in sample.topics})
    found = messages(folder)
    stamps = [stamp_ns(STATES[t]) for t in (9.0, 9.1, 9.2, 9.3)]
    for topic in (IMAGE, DEPTH, '/camera/camera_info', '/scan', '/lidar/points'):
        assert [read_stamp_ns(m) for m in found[topic]] == stamps, topic
    info = found['/camera/camera_info'][0]
    assert (info.width, info.height) == SIZE
    assert not (folder / 'frames').exists()


def test_events_yaml_matches_the_frames(folder: Path, moving: MovingScene) -> None:
    events = yaml.safe_load((folder / 'events.yaml').read_text(encoding='utf-8'))['events']
    event, = events
    depths = messages(folder)[DEPTH]
    stamps = [read_stamp_ns(m) for m in depths]
    assert event['name'] == 'ball'
    assert (event['start_ns'], event['end_ns']) == (stamps[0], stamps[-1])
    assert (event['first_visible_ns'], event['last_visible_ns']) == (stamps[0], stamps[-1])
    without_m = standing_depth_m(moving, STATES[9.0])
    for entry, message in zip(event['frames'], depths, strict=True):
        assert entry['stamp_ns'] == read_stamp_ns(message)
        depth_m = cv2.imdecode(message.data, cv2.IMREAD_UNCHANGED) / 1000.0
        ball = (depth_m > 0) & (depth_m < without_m - 0.002)
        assert entry['share'] == pytest.approx(ball.mean(), abs=1e-5)
        rows, columns = np.nonzero(ball)
        assert entry['box_px'] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def test_the_ball_covers_one_to_two_percent_at_its_largest(moving: MovingScene) -> None:
    states = [s for s in list(STATES.values())[::2] if 8.6 <= s.t_s <= 10.6]
    event, = second_drive.describe_events(moving, states, (160, 120))['events'][1:]
    shares = [frame['share'] for frame in event['frames']]
    assert 0.01 < max(shares) < 0.02
    assert len(shares) < len(states)  # it comes from outside and leaves
    enough = [f['stamp_ns'] for f in event['frames'] if f['share'] >= 0.01]
    assert [event['first_visible_ns'], event['last_visible_ns']] == [enough[0], enough[-1]]
    assert event['start_ns'] < enough[0] and enough[-1] < event['end_ns']


def test_moving_things_are_listed_apart_from_the_obstacles(folder: Path,
                                                           moving: MovingScene) -> None:
    scene = json.loads((folder / 'scene.json').read_text(encoding='utf-8'))
    assert [o['name'] for o in scene['obstacles']] == [o.name for o in moving.dark.obstacles]
    assert not {'ball', 'person', 'door'} & {o['name'] for o in scene['obstacles']}
    boxes = {each['name']: each['boxes'] for each in scene['moving']}
    assert {name: len(each) for name, each in boxes.items()} == {
        'ball': 4, 'person': 0, 'door': 4}
    # After 0.35 of 1.95 s, it has rolled 0.459 of its way of 2.56 m from y = 0.72.
    assert boxes['ball'][0] == {'stamp_ns': stamp_ns(STATES[9.0]),
                                'min_m': pytest.approx([3.82, 1.069, 0], abs=0.002),
                                'max_m': pytest.approx([4.04, 1.289, 0.22], abs=0.002)}


def test_an_interrupted_run_goes_on_with_the_frames_that_it_kept(tmp_path: Path) -> None:
    kept = tmp_path / 'frames' / f'{SEED}-1-16-64'
    kept.mkdir(parents=True)
    np.savez(kept / '0090.npz', rgb=np.full((48, 64, 3), 77, np.uint8),
             depth_m=np.full((48, 64), 1.5, np.float32), K=np.eye(3))
    second_drive.write_second_drive(tmp_path, quality=COARSE, seed=SEED, size=SIZE,
                                    window_s=(9.0, 9.1))
    found = messages(tmp_path)
    depth_mm = cv2.imdecode(found[DEPTH][0].data, cv2.IMREAD_UNCHANGED)
    assert len(found[DEPTH]) == 1 and (depth_mm == 1500).all()
