"""The limits of carrying: the drives, their rendering, and what is reported of them."""

from __future__ import annotations

from dataclasses import replace
import json

import numpy as np
import pytest

from benchmarks import carrying_limits
from benchmarks.carrying_limits import CONDITIONS, DRIVES, format_row, Outcome
from scenes import drive_bag, render, robot_path, second_room
from scenes.scene_types import Quality


@pytest.fixture(autouse=True)
def small_and_coarse(monkeypatch):
    for name, value in (('WIDTH', 64), ('HEIGHT', 48), ('STRIPS', 6), ('DURATION_S', 0.2),
                        ('QUALITY', Quality(passes=1, edge_samples=0, texture_size=16))):
        monkeypatch.setattr(carrying_limits, name, value)


def outcome(ran, abs_rel):
    frames = np.ones(len(ran))
    return Outcome(np.array(ran, float), frames, abs_rel * frames, np.nan * frames, 0.0 * frames)


@pytest.fixture(scope='module')
def moving():
    return second_room.make_second_room(carrying_limits.SEED, 16, carrying_limits.CROWD)


@pytest.mark.parametrize('drive', DRIVES.values(), ids=DRIVES)
def test_every_drive_keeps_clear_of_furniture_and_people(drive, moving):
    furniture = [(o.min_m, o.max_m) for o in moving.dark.obstacles if o.min_m[2] < 0.6]
    for state in robot_path.integrate_path(drive.start, drive.controls, 10, 5.0):
        people = [bounds for thing in moving.things if drive.crowd and 'person' in thing.name
                  and (bounds := moving.bounds(thing.name, state.t_s)) is not None]
        for low, high in [*furniture, *people]:
            at = state.x_m, state.y_m
            outside = np.maximum(np.subtract(low[:2], at), np.subtract(at, high[:2]))
            assert np.linalg.norm(np.maximum(outside, 0.0)) > 0.2, state


def test_every_condition_has_a_drive_and_every_drive_a_condition():
    assert {drive for drive, _ in CONDITIONS.values()} == set(DRIVES)


def test_a_rolling_shutter_reads_lower_rows_later(moving, monkeypatch):
    monkeypatch.setitem(DRIVES, 'rolling', carrying_limits.Drive(
        [(0.0, 0.0, 10.0)], carrying_limits.MIDDLE, rolling=True))
    rolling = carrying_limits.render_drive('rolling').depth_m[0]
    states = robot_path.integrate_path(carrying_limits.MIDDLE, [(0.0, 0.0, 10.0)], 1000, 0.006)
    room = replace(moving, things=[t for t in moving.things if t.name == 'door'])
    for number in (0, 5):
        camera = drive_bag.robot_camera(states[number], 64, 48)
        rows = slice(8 * number, 8 * number + 8)
        whole = render.depth_along_z(room.at(0.0), camera)
        np.testing.assert_allclose(rolling[rows], whole[rows], rtol=1e-5)


def test_people_are_marked_where_they_are_seen(moving):
    crowd = carrying_limits.render_drive('crowd')
    camera = drive_bag.robot_camera(robot_path.RobotState(0.0, *carrying_limits.START, 0.0, 0.0),
                                    64, 48)
    seen = np.any([moving.visible_pixels(thing.name, 0.0, camera) for thing in moving.things
                   if 'person' in thing.name], axis=0)
    assert 0.01 < seen.mean() < 0.2
    assert np.mean(crowd.people[0] != seen) < 0.005  # their soles are as far as the floor
    assert not carrying_limits.render_drive('ahead').people.any()


def test_frames_are_rendered_once_and_every_frame_is_scored(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(carrying_limits, 'CONDITIONS', {
        name: CONDITIONS[name] for name in ('crowd, dark', 'low light, standing')})
    arguments = ['--frames', str(tmp_path / 'frames'), '--out', str(tmp_path)]
    carrying_limits.main(arguments)
    conditions = json.loads((tmp_path / 'carrying_limits.json').read_text())['conditions']
    monkeypatch.setattr(carrying_limits, 'render_drive', None)
    carrying_limits.main(arguments)
    assert json.loads((tmp_path / 'carrying_limits.json').read_text())['conditions'] == conditions
    for by_policy in conditions.values():
        assert list(by_policy) == list(carrying_limits.POLICIES)
        assert by_policy[carrying_limits.FIXED]['ran'] == [1.0, 1.0]
        assert all(value > 0.0 for each in by_policy.values() for value in each['abs_rel'])
    assert 'low light, standing' in capsys.readouterr().out


def test_noise_and_darkness_change_the_image_and_not_the_truth():
    drive = carrying_limits.render_drive('standing')
    clear, low, dark = (drive.develop(camera)[0].astype(float) for camera in (
        carrying_limits.CLEAR, carrying_limits.LOW, carrying_limits.DARK))
    assert np.abs(low - clear).std() > 10.0
    assert dark.mean() < 0.5 * clear.mean()


def test_a_row_tells_saved_and_needless_runs():
    fixed = outcome([1] * 50, 0.2)
    novelty = outcome([1, *[0] * 19, 1, *[0] * 19, 1, 1, *[0] * 8], 0.21)
    outcomes = {carrying_limits.FIXED: fixed, carrying_limits.NOVELTY: novelty}
    row = format_row('dark, standing', outcomes)
    assert row['runs saved'] == '92%'
    assert row['difference (95 %)'] == '+5.0% (+5.0%..+5.0%)'
    assert row['needless runs'] == '1'  # with one every 2 s, three were due
    assert row['on people'] == ''
    assert format_row('dark', outcomes)['needless runs'] == ''
