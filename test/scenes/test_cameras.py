"""Tests of cameras and their sensors: mounts, exposure, lens, mosaic, compression, borders."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scenes import cameras, interiors, render, sensor
from scenes.meshes import Floats
from scenes.scene_builder import SceneBuilder
from scenes.scene_types import Scene, Sensor


@pytest.fixture(scope='module')
def room() -> Scene:
    """Make a furnished room."""
    return interiors.sample_room(SceneBuilder(np.random.default_rng(3), 16))


def edge_card() -> Floats:
    """Make radiance that is dark in the left half and bright in the right one."""
    card = np.full((40, 60, 3), 0.1, np.float32)
    card[:, 30:] = 1.0
    return card


def test_cameras_are_carried_at_every_height_and_pitch(room: Scene) -> None:
    rng = np.random.default_rng(0)
    drawn = [cameras.sample_camera(room, rng, (48, 36)) for _ in range(150)]
    heights = np.array([camera.position[2] for camera in drawn])
    pitches = np.degrees([np.arcsin(camera.rotation[2, 2]) for camera in drawn])
    widths = np.degrees([2 * np.arctan(24 / camera.K[0, 0]) for camera in drawn])
    assert heights.min() < 0.5 and 1.9 < heights.max() <= 2.2
    assert -60 <= pitches.min() < -40 and 10 < pitches.max() <= 30
    assert 40 <= widths.min() < 48 and 95 < widths.max() <= 110


def test_a_neutral_sensor_changes_nothing_but_tone() -> None:
    image = sensor.develop(edge_card(), Sensor(gain=1.0))
    assert image.shape == (40, 60, 3)
    assert np.ptp(image[:, :30], axis=(0, 1)).max() == 0
    # Tone curve by hand: 1 * (1 + 1 / 36) / 1.6 = 0.642, to the power of 1 / 2.2.
    assert abs(int(image[0, 40, 0]) - 255 * 0.642 ** (1 / 2.2)) < 1.5


def test_bright_windows_blow_out_unless_metering_keeps_them() -> None:
    card = np.full((40, 60, 3), 0.01, np.float32)
    card[:10] = 5.0
    kept = sensor.develop(card, Sensor(keeps_highlights=True))
    blown = sensor.develop(card, Sensor(keeps_highlights=False))
    assert blown[0, 0].min() == 255 > kept[0, 0].max()
    assert blown[30, 30, 0] > kept[30, 30, 0] + 30


def test_motion_blurs_along_its_direction_only() -> None:
    along = sensor.develop(edge_card(), Sensor(gain=1.0, motion_px=(6.0, 0.0))).astype(int)
    across = sensor.develop(edge_card(), Sensor(gain=1.0, motion_px=(0.0, 6.0))).astype(int)
    steps = np.abs(np.diff(along[20, :, 0])) > 0
    assert 5 <= steps.sum() <= 8
    assert (np.abs(np.diff(across[20, :, 0])) > 0).sum() == 1


def test_a_mosaic_keeps_plain_areas_and_blurs_colour_at_edges() -> None:
    card = edge_card() * np.array([1.0, 0.5, 0.2], np.float32)
    plain, mosaic = (sensor.develop(card, Sensor(gain=1.0, mosaic=m)).astype(int)
                     for m in (False, True))
    assert np.abs(plain - mosaic)[:, 34:].max() <= 1
    assert np.abs(plain - mosaic)[:, 28:32].max() > 5


def test_jpeg_of_low_quality_changes_more_than_one_of_high_quality() -> None:
    rng = np.random.default_rng(0)
    card = rng.uniform(0.05, 1.0, (48, 64, 3)).astype(np.float32)
    exact = sensor.develop(card, Sensor(gain=1.0)).astype(int)
    error = [np.abs(sensor.develop(card, Sensor(gain=1.0, jpeg_quality=q)) - exact).mean()
             for q in (95, 30)]
    assert 0 < error[0] < error[1]


def test_a_border_covers_image_and_depth(room: Scene) -> None:
    camera = cameras.sample_camera(room, np.random.default_rng(1), (40, 30))
    border = replace(camera, sensor=Sensor(border=(0.1, 0.2, 0.0, 0.1), border_grey=255))
    frame = render.render(room, border)
    covered = np.ones((30, 40), bool)
    covered[6:27, 4:] = False
    np.testing.assert_array_equal(frame.depth_m == 0, covered)
    assert (frame.rgb[covered] == 255).all()
    assert not (frame.rgb[~covered] == 255).all()


def test_colour_fringes_grow_from_the_centre() -> None:
    card = np.tile(edge_card()[:, ::-1], (1, 2, 1))     # edges at columns 30, 60 and 90
    image = sensor.develop(card, Sensor(gain=1.0, colour_fringe=0.05)).astype(int)
    difference = np.abs(image[..., 0] - image[..., 2])[20]
    assert difference[85:95].max() > 20
    assert difference[59:61].max() < difference[85:95].max()


def test_the_same_seed_gives_the_same_sensor_and_image() -> None:
    looks = [sensor.sample_sensor(np.random.default_rng(7)) for _ in range(2)]
    assert looks[0] == looks[1]
    np.testing.assert_array_equal(*(sensor.develop(edge_card(), look) for look in looks))
