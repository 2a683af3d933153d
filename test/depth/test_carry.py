"""Depth that is carried: where it lies in a later frame, what it covers, and its metres."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from marigold_ros.depth.carry import DepthCarrier, Motion, View

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


def start(depth=None, confidence=None):
    carrier = DepthCarrier(look())
    run(carrier, ramp() if depth is None else depth, confidence)
    return carrier


def run(carrier, depth, confidence=None, motion=None):
    """Let the networks run on the last frame."""
    carrier.begin_run(motion)
    return carrier.finish_run(depth, confidence, depth.shape[::-1])


def drive(pose, scale=4.0, shift=1.0):
    """Return the motion of a camera from the origin to a pose."""
    return Motion(View(K, np.eye(4)), View(K, pose), scale, shift)


def disc(share, column=160, row=120):
    """Return a disc that covers a share of the image."""
    radius = np.sqrt(share * WIDTH * HEIGHT / np.pi)
    return (COLUMNS - column) ** 2 + (ROWS - row) ** 2 <= radius ** 2


def test_depth_moves_with_the_image_and_is_not_blurred():
    """After 15 frames of 1.3 px each, to one pixel in the mean; a blurred step would be wider."""
    step = (COLUMNS > 100).astype(np.float32)
    carrier = start(ramp() + step, np.full((HEIGHT, WIDTH), 0.7, np.float32))
    for i in range(1, 16):
        carrier.advance(look(dx=1.3 * i, seed=i))
    carried = carrier.carry()
    inside = COLUMNS > 25
    depth = carried.depth
    assert np.abs(depth - ramp(dx=19.5))[inside & (COLUMNS < 110)].mean() < 1.2 * 0.6 / WIDTH
    assert ((np.diff(depth) > 0.1).sum(axis=1) <= 3).all()  # pixels over which the step extends
    assert (np.abs(np.argmax(np.diff(depth), axis=1) - 119.5) < 3).all()
    assert carried.covered[inside].mean() > 0.995
    assert not carried.covered[:, :17].any()  # came into view
    assert np.array_equal(carrier.new, ~carried.covered)
    assert carrier.covered_share == pytest.approx(1 - 19.5 / WIDTH, abs=0.01)
    assert carried.confidence == pytest.approx(0.7)
    # Filled from the neighbours.
    assert np.abs(depth[:, :17] - 0.2).max() < 0.02


def test_noise_and_exposure_are_nothing_new():
    carrier = start()
    for i, (gain, offset) in enumerate([(1, 0), (0.8, 0), (0.8, 30), (1.2, -20), (1, 0)], 2):
        image = np.clip(look(seed=i, noise=6.0) * gain + offset, 0, 255).astype(np.uint8)
        assert carrier.advance(image) < 0.1 and carrier.covered_share > 0.995
    assert np.abs(carrier.carry().depth - ramp()).max() < 0.02


def test_a_lamp_that_blinds_the_camera_is_nothing_new_beside_noise():
    """Flow smooths the noise, so the exposure seems to rise; a pixel cannot be above 255."""
    def dazzled(number):
        image = look(dx=0.5 * number, noise=40.0, seed=number)
        image[60:180, 100:220] = 255
        return image

    carrier = DepthCarrier(dazzled(1))
    run(carrier, ramp())
    assert carrier.advance(dazzled(2)) < 0.65


@pytest.mark.parametrize(('column', 'row'), [(160, 120), (30, 200), (289, 51)])
def test_a_thing_of_one_percent_is_seen_when_it_comes_and_when_it_goes(column, row):
    """While the camera moves."""
    thing = disc(0.01, column, row)
    carrier = start()
    assert carrier.advance(look(dx=2, seed=2)) < 0.2
    image = look(dx=4, seed=3)
    image[thing] = 220
    assert carrier.advance(image) > 0.65
    assert carrier.new[thing].mean() > 0.8
    assert carrier.new[~thing & (COLUMNS > 8)].mean() < 0.02
    run(carrier, ramp())
    assert carrier.advance(look(dx=6, seed=4)) > 0.65


def test_what_changed_stays_new_until_a_run_and_moves_along():
    carrier, thing = start(), disc(0.02)
    image = look(seed=2)
    image[thing] = 255
    carrier.advance(image)
    shifted = np.roll(image, 6, axis=1)
    carrier.advance(shifted)
    assert carrier.new[np.roll(thing, 6, axis=1)].mean() > 0.8
    assert not carrier.carry().covered[120, 166]
    run(carrier, ramp())
    carrier.advance(shifted)
    assert carrier.covered_share > 0.99


def test_a_slow_turn_is_noticed():
    """A third of a pixel per frame."""
    carrier = start()
    for i in range(1, 61):
        carrier.advance(look(dx=0.3 * i, seed=i))
    assert carrier.covered_share == pytest.approx(1 - 18 / WIDTH, abs=0.02)


def test_after_a_cut_nothing_is_covered():
    carrier = start()
    carrier.advance(texture(seed=9)[:HEIGHT, :WIDTH].astype(np.uint8))
    assert carrier.covered_share < 0.5


@pytest.mark.parametrize('size', [(1280, 960), (160, 120)])
def test_depth_is_carried_at_its_own_size(size):
    """On the grey image of 320 px."""
    depth, part = cv2.resize(ramp(), size), size[0] // 20
    carrier = start(depth=depth)
    carrier.advance(look(dx=8, seed=2))
    moved = carrier.carry().depth
    assert moved.shape == depth.shape
    assert np.abs(moved[:, part:] - depth[:, part // 2:-part // 2]).mean() < 0.002


def test_the_depth_of_a_run_is_moved_from_its_own_frame():
    """It began at 8 px and ends at 20; meanwhile that of the run before is carried."""
    carrier = start()
    for number, dx in enumerate((4, 8, 12, 16, 20)):
        carrier.advance(look(dx=dx, seed=number))
        if dx == 8:
            carrier.begin_run()
    assert carrier.covered_share == pytest.approx(1 - 20 / WIDTH, abs=0.01)
    assert np.abs(carrier.carry().depth - ramp(dx=20))[:, 24:].max() < 0.02
    change = carrier.finish_run(0.5 * ramp(dx=8) + np.float32(0.1), None, (WIDTH, HEIGHT))
    assert change is None  # as it is not known how the camera moved
    assert carrier.covered_share == pytest.approx(1 - 12 / WIDTH, abs=0.01)
    expected = 0.5 * ramp(dx=20) + np.float32(0.1)
    assert np.abs(carrier.carry().depth - expected)[:, 16:].max() < 0.02


def test_a_run_that_has_not_begun_cannot_finish():
    with pytest.raises(RuntimeError, match='`finish_run` comes after `begin_run`'):
        DepthCarrier(look()).finish_run(ramp(), None, (WIDTH, HEIGHT))


def test_metres_stay_true_while_the_camera_drives_towards_a_wall():
    """From 2 m to 1.6 m, with metric depth = 4 m * relative depth + 1 m."""
    there = np.eye(4)
    there[2, 3] = 0.4
    wall = np.full((HEIGHT, WIDTH), 0.25, np.float32)
    carrier = start(depth=wall)
    for zoom in np.linspace(1.0, 2.0 / 1.6, 6)[1:]:
        carrier.advance(look(zoom=zoom))
    metric = 4.0 * carrier.carry(drive(there)).depth + 1.0
    assert np.abs(metric - 1.6).max() < 0.01
    assert (carrier.carry().depth == 0.25).all()  # the motion is not known


def test_metres_follow_a_turn():
    """A wall at 2 m; the camera turns by 10 degrees: z becomes 2 m * (R r)_z."""
    angle = np.deg2rad(10.0)
    turned = np.eye(4)
    turned[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0],
                      [-np.sin(angle), 0, np.cos(angle)]]
    carrier = start(depth=np.full((HEIGHT, WIDTH), 0.5, np.float32))
    carrier.advance(look(seed=2))  # stands for an image in which every pixel stays where it was
    found = 4.0 * carrier.carry(drive(turned, shift=0.0)).depth
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
carrier = DepthCarrier(frames[0])
carrier.begin_run()
carrier.finish_run(depth, depth, depth.shape[::-1])
for frame in frames:
    carrier.advance(frame)
print(carrier.carry().depth.shape)
"""], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == (f'({height}, {width})\n', 0), done.stderr


def test_the_gauge_of_the_next_run_is_found_while_the_image_moves():
    """Up to noise, and although a tenth of the pixels has another depth."""
    rng, old = np.random.default_rng(0), (ramp() + 0.2 * disc(0.1)).astype(np.float32)
    carrier = start(old)
    for i in range(1, 5):
        carrier.advance(look(dx=3 * i, seed=i))
    scene = ramp(dx=12) + 0.2 * disc(0.1, column=172)
    new = 0.6 * scene + 0.15 + rng.normal(size=scene.shape) * 0.01
    change = run(carrier, new.astype(np.float32), motion=drive(np.eye(4)))
    assert change.factor == pytest.approx(0.6, abs=0.02)
    assert change.offset == pytest.approx(0.15, abs=0.02)
    # It could also be motion, where that is not known.
    carrier.advance(look(dx=15, seed=5))
    assert run(carrier, new.astype(np.float32)) is None


def test_the_motion_of_the_camera_is_no_change_of_the_gauge():
    """From 2 m to 1.6 m, a slanted wall; metric depth = 4 m * relative depth + 1 m."""
    there = np.eye(4)
    there[2, 3] = 0.4
    for motion, offset in ((drive(there), 0.0), (None, -0.1)):
        carrier = start()
        carrier.advance(look(seed=2))  # as if every pixel stayed where it was
        change = run(carrier, ramp() - np.float32(0.1), motion=motion)
        assert change.factor == pytest.approx(1.0, abs=0.01)
        assert change.offset == pytest.approx(offset, abs=0.01)


@pytest.mark.parametrize('depth', [
    1.0 - ramp(), np.full((HEIGHT, WIDTH), 0.5, np.float32),
    np.random.default_rng(0).random((HEIGHT, WIDTH), np.float32)],
    ids=['inverted', 'flat', 'unlike'])
def test_runs_that_do_not_resemble_each_other_have_no_common_gauge(depth):
    carrier = start()
    carrier.advance(look(seed=2))
    assert run(carrier, depth) is None


@pytest.mark.parametrize(('frames', 'found'), [(15, True), (20, False)])
def test_where_little_is_covered_there_is_no_gauge(frames, found):
    """After a turn by 3/4 of the image, and by all of it."""
    carrier = DepthCarrier(look(dx=-160))
    run(carrier, ramp())
    for number in range(1, frames + 1):
        carrier.advance(look(dx=16 * number - 160, seed=number))
    change = run(carrier, ramp(dx=16 * frames), motion=drive(np.eye(4)))
    assert (change is not None) == found
