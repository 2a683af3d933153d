"""Depth that is carried: where it lies in a later frame, what it covers, and its metres."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from marigold_ros.depth.carry import DepthCarrier, View

HEIGHT, WIDTH = 240, 320
ROWS, COLUMNS = np.indices((HEIGHT, WIDTH), np.float32)
K = np.array([[300.0, 0.0, 160.0], [0.0, 300.0, 120.0], [0.0, 0.0, 1.0]])


def texture(seed=0, size=(900, 900)):
    """Return a grey image of blobs of all sizes."""
    rng = np.random.default_rng(seed)
    image = sum(cv2.resize(rng.normal(size=(size[0] // cell, size[1] // cell)), size[::-1],
                           interpolation=cv2.INTER_CUBIC) * np.sqrt(cell) for cell in (6, 15, 45))
    return np.clip(128 + 20 * image / image.std() * 1.5, 0, 255).astype(np.float32)


WORLD = texture()


def look(dx=0.0, dy=0.0, zoom=1.0, noise=2.0, seed=1):
    """Return the view [240,320] of the world that is moved by some px and enlarged."""
    columns = (COLUMNS - 160) / zoom + 450 - dx
    rows = (ROWS - 120) / zoom + 450 - dy
    image = cv2.remap(WORLD, np.float32(columns), np.float32(rows), cv2.INTER_LINEAR)
    image += np.random.default_rng(seed).normal(size=image.shape) * noise
    return np.clip(image, 0, 255).astype(np.uint8)


def ramp(dx=0.0):
    """Return depth that falls from left to right, moved by dx px; [240,320]."""
    return (0.2 + 0.6 * (COLUMNS - dx) / WIDTH).astype(np.float32)


def start(depth=None, confidence=None, **kwargs):
    carrier = DepthCarrier(look())
    carrier.start(ramp() if depth is None else depth, confidence, **kwargs)
    return carrier


def disc(share, column=160, row=120):
    """Return a disc that covers a share of the image."""
    radius = np.sqrt(share * WIDTH * HEIGHT / np.pi)
    return (COLUMNS - column) ** 2 + (ROWS - row) ** 2 <= radius ** 2


def test_depth_moves_with_the_image_and_is_not_blurred():
    """After 15 frames of 1.3 px each, to one pixel in the mean; a blurred step would be wider."""
    step = (COLUMNS > 100).astype(np.float32)
    carrier = start(ramp() + step, np.full((HEIGHT, WIDTH), 0.7, np.float32))
    for i in range(1, 16):
        novelty = carrier.advance(look(dx=1.3 * i, seed=i))
    carried = carrier.carry()
    inside = COLUMNS > 25
    depth = carried.affine_invariant_depth
    assert np.abs(depth - ramp(dx=19.5))[inside & (COLUMNS < 110)].mean() < 1.2 * 0.6 / WIDTH
    assert ((np.diff(depth) > 0.1).sum(axis=1) <= 3).all()  # pixels over which the step extends
    assert (np.abs(np.argmax(np.diff(depth), axis=1) - 119.5) < 3).all()
    assert carried.covered[inside].mean() > 0.995
    assert not carried.covered[:, :17].any()  # came into view
    assert novelty.covered_share == pytest.approx(carried.covered.mean(), abs=0.01)
    assert novelty.covered_share == pytest.approx(1 - 19.5 / WIDTH, abs=0.01)
    assert carried.confidence == pytest.approx(0.7 * carried.covered, abs=1e-6)
    # Filled from the neighbours.
    assert np.abs(depth[:, :17] - 0.2).max() < 0.02


def test_noise_and_exposure_are_nothing_new():
    carrier = start()
    for i, (gain, offset) in enumerate([(1, 0), (0.8, 0), (0.8, 30), (1.2, -20), (1, 0)], 2):
        image = np.clip(look(seed=i, noise=6.0) * gain + offset, 0, 255).astype(np.uint8)
        novelty = carrier.advance(image)
        assert novelty.covered_share > 0.995 and novelty.largest_change < 0.1
    assert np.abs(carrier.carry().affine_invariant_depth - ramp()).max() < 0.02


def test_a_lamp_that_blinds_the_camera_is_nothing_new_beside_noise():
    """Flow smooths the noise, so the exposure seems to rise; a pixel cannot be above 255."""
    def dazzled(number):
        image = look(dx=0.5 * number, noise=40.0, seed=number)
        image[60:180, 100:220] = 255
        return image

    carrier = DepthCarrier(dazzled(1))
    carrier.start(ramp(), None)
    assert carrier.advance(dazzled(2)).largest_change < 0.65


@pytest.mark.parametrize(('column', 'row'), [(160, 120), (30, 200), (289, 51)])
def test_a_thing_of_one_percent_is_seen_when_it_comes_and_when_it_goes(column, row):
    """While the camera moves."""
    thing = disc(0.01, column, row)
    carrier = start()
    assert carrier.advance(look(dx=2, seed=2)).largest_change < 0.2
    image = look(dx=4, seed=3)
    image[thing] = 220
    came = carrier.advance(image)
    assert came.largest_change > 0.65
    assert came.new[thing].mean() > 0.8
    assert came.new[~thing & (COLUMNS > 8)].mean() < 0.02
    carrier.start(ramp(), None)
    assert carrier.advance(look(dx=6, seed=4)).largest_change > 0.65


def test_what_changed_stays_new_until_a_run_and_moves_along():
    carrier, thing = start(), disc(0.02)
    image = look(seed=2)
    image[thing] = 255
    carrier.advance(image)
    shifted = np.roll(image, 6, axis=1)
    novelty = carrier.advance(shifted)
    assert novelty.new[np.roll(thing, 6, axis=1)].mean() > 0.8
    assert not carrier.carry().covered[120, 166]
    carrier.start(ramp(), None)
    assert carrier.advance(shifted).covered_share > 0.99


def test_a_slow_turn_is_noticed():
    """A third of a pixel per frame."""
    carrier = start()
    for i in range(1, 61):
        novelty = carrier.advance(look(dx=0.3 * i, seed=i))
    assert novelty.covered_share == pytest.approx(1 - 18 / WIDTH, abs=0.02)


def test_after_a_cut_nothing_is_covered():
    carrier = start()
    assert carrier.advance(texture(seed=9)[:HEIGHT, :WIDTH].astype(np.uint8)).covered_share < 0.5


def test_a_larger_image_is_carried_at_its_own_size():
    """1280x960 depth on the grey image of 320 px."""
    large = cv2.resize(ramp(), (1280, 960))
    carrier = start(depth=large)
    carrier.advance(look(dx=8, seed=2))
    moved = carrier.carry().affine_invariant_depth
    assert moved.shape == large.shape
    assert np.abs(moved[:, 64:] - large[:, 32:-32]).mean() < 0.002


def test_metres_stay_true_while_the_camera_drives_towards_a_wall():
    """From 2 m to 1.6 m, with metric depth = 4 m * relative depth + 1 m."""
    here, there = np.eye(4), np.eye(4)
    there[2, 3] = 0.4
    wall = np.full((HEIGHT, WIDTH), 0.25, np.float32)
    carrier = start(depth=wall, view=View(K, here))
    for zoom in np.linspace(1.0, 2.0 / 1.6, 6)[1:]:
        carrier.advance(look(zoom=zoom))
    metric = 4.0 * carrier.carry(View(K, there), (4.0, 1.0)).affine_invariant_depth + 1.0
    assert np.abs(metric - 1.6).max() < 0.01
    assert (carrier.carry(View(K, there)).affine_invariant_depth == 0.25).all()  # no scale
    assert (carrier.carry(None, (4.0, 1.0)).affine_invariant_depth == 0.25).all()  # no pose


def test_metres_follow_a_turn():
    """A wall at 2 m; the camera turns by 10 degrees: z becomes 2 m * (R r)_z."""
    angle = np.deg2rad(10.0)
    turned = np.eye(4)
    turned[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0],
                      [-np.sin(angle), 0, np.cos(angle)]]
    carrier = start(depth=np.full((HEIGHT, WIDTH), 0.5, np.float32), view=View(K, np.eye(4)))
    carrier.advance(look(seed=2))  # stands for an image in which every pixel stays where it was
    found = 4.0 * carrier.carry(View(K, turned), (4.0, 0.0)).affine_invariant_depth
    rays = (COLUMNS - 160) / 300
    expected = 2.0 * (np.sin(angle) * rays + np.cos(angle))
    assert np.abs(found - expected).max() < 0.01


@pytest.mark.parametrize(('height', 'width'), [
    (1, 1), (1, 320), (320, 1), (8, 8), (17, 320), (40, 320), (97, 320), (127, 320), (320, 97),
    (320, 12), (128, 320)])
def test_images_of_any_shape_are_carried(height, width):
    """In a process of its own, because OpenCV's flow would end it."""
    done = subprocess.run([sys.executable, '-c', f"""
import numpy as np
from marigold_ros.depth.carry import DepthCarrier
rng = np.random.default_rng(0)
depth = np.ones(({height}, {width}), np.float32)
frames = rng.integers(0, 255, (4, {height}, {width})).astype(np.uint8)
carrier = DepthCarrier(frames[0], 192)
carrier.start(depth, depth)
for frame in frames:
    carrier.advance(frame)
print(carrier.carry().affine_invariant_depth.shape)
"""], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == (f'({height}, {width})\n', 0), done.stderr


def test_the_gauge_of_the_next_run_is_found_while_the_image_moves():
    """Up to noise, and although a tenth of the pixels has another depth."""
    rng, view = np.random.default_rng(0), View(K, np.eye(4))
    carrier = start(ramp() + 0.2 * disc(0.1), view=view)
    for i in range(1, 5):
        carrier.advance(look(dx=3 * i, seed=i))
    scene = ramp(dx=12) + 0.2 * disc(0.1, column=172)
    run = 0.6 * scene + 0.15 + rng.normal(size=scene.shape) * 0.01
    change = carrier.compare(run.astype(np.float32), view, (4.0, 1.0))
    assert change.factor == pytest.approx(0.6, abs=0.02)
    assert change.offset == pytest.approx(0.15, abs=0.02)
    # It could also be motion, where that is not known.
    assert carrier.compare(run.astype(np.float32)) is None


def test_the_motion_of_the_camera_is_no_change_of_the_gauge():
    """From 2 m to 1.6 m, a slanted wall; metric depth = 4 m * relative depth + 1 m."""
    there = np.eye(4)
    there[2, 3] = 0.4
    carrier = start(view=View(K, np.eye(4)))
    carrier.advance(look(seed=2))  # stands for an image in which every pixel stays where it was
    run = ramp() - np.float32(0.1)
    change = carrier.compare(run, View(K, there), (4.0, 1.0))
    assert (change.factor, change.offset) == (pytest.approx(1.0, abs=0.01),
                                              pytest.approx(0.0, abs=0.01))
    assert carrier.compare(run).offset == pytest.approx(-0.1, abs=0.01)


@pytest.mark.parametrize('run', [
    1.0 - ramp(), np.full((HEIGHT, WIDTH), 0.5, np.float32),
    np.random.default_rng(0).random((HEIGHT, WIDTH), np.float32)],
    ids=['inverted', 'flat', 'unlike'])
def test_runs_that_do_not_resemble_each_other_have_no_common_gauge(run):
    carrier = start()
    carrier.advance(look(seed=2))
    assert carrier.compare(run) is None


def test_where_little_is_covered_there_is_no_gauge():
    carrier = start()
    carrier.advance(texture(seed=9)[:HEIGHT, :WIDTH].astype(np.uint8))
    carrier._covered[:] = 0.0
    carrier._covered[100:150, 100:150] = 1.0
    assert carrier.compare(ramp()) is None
