"""Frames and clouds that a page shows: even samples, their joining, and what is encoded."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest

from marigold_ros.evaluation.metrics.protocol_a import relative_error
from marigold_ros.evaluation.report.look import (
    describe_depth,
    EvenSample,
    MAX_FRAMES,
    MAX_POINTS,
    RecordingLook,
    StripFrame,
)

SIZE = 6, 8


def strip_frame(number, **changes):
    """Return a frame of which only the relative depth is known."""
    fields = {
        'number': number, 'stamp_ns': 10 ** 8 * number, 'rgb': np.full((*SIZE, 3), 200, np.uint8),
        'relative_depth': np.full(SIZE, 0.5, np.float32), 'depth_m': None, 'error': None,
        'points': None, 'point_colors': None, 'num_inference_steps': 1, 'facts': {'a': 'b'}}
    return StripFrame(**{**fields, **changes})


def decode(jpeg):
    """Return the RGB pixels of a JPEG."""
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


@pytest.mark.parametrize('count', [1, 7, 100, 1001])
def test_a_sample_is_even_and_bounded(count):
    sample = EvenSample(8)
    for number in range(count):
        sample.add(number, number)
    kept = list(sample.items)
    assert min(count, 4) <= len(kept) <= 8
    assert kept[0] == 0 and len(set(np.diff(kept))) <= 1


@pytest.mark.parametrize('split', [1, 3, 50, 99])
def test_samples_of_two_parts_are_bounded_and_even_in_each(split):
    first, second = EvenSample(8), EvenSample(8)
    for number in range(100):
        if number < split:
            first.add(number, number)
        else:
            second.add(number - split, number)
    first.join(second, split)
    assert all(number == item for number, item in first.items.items())
    kept = list(first.items)
    assert 3 <= len(kept) <= 8 and kept == sorted(set(kept))
    steps = np.diff(kept)
    assert np.median(steps) == 16 and steps.max() <= 2 * 16


def test_a_long_recording_stays_small_when_it_is_pickled():
    look = RecordingLook()
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    for number in range(2 * MAX_FRAMES + 1):
        if look.wants(number):
            look.add(strip_frame(number, rgb=noise))
    assert MAX_FRAMES // 2 <= len(look.frames.items) <= MAX_FRAMES
    # A page has room for 10 MB of them, and noise is the worst.
    assert len(pickle.dumps(look)) < 10e6
    assert set(look.clouds.items) <= set(look.frames.items)


def test_the_parts_of_a_recording_are_joined():
    parts = []
    for count in (60, 70):
        look = RecordingLook()
        for number in filter(look.wants, range(count)):
            look.add(strip_frame(number))
        parts.append(pickle.loads(pickle.dumps(look)))
    parts[0].join(parts[1], 60)
    assert list(parts[0].frames.items) == list(range(0, 130, 2))
    assert [frame.number for frame in parts[0].frames.items.values()] == list(range(0, 130, 2))
    assert len(parts[0].clouds.items) > 2 and min(parts[0].clouds.items) == 0
    assert max(parts[0].clouds.items) > 60


def test_panels_show_what_is_known_and_grey_where_depth_is_not_covered():
    relative = np.full((60, 80), 0.0, np.float32)
    relative[:, 40:] = np.nan
    look = RecordingLook()
    look.add(strip_frame(0, rgb=np.full((60, 80, 3), (200, 30, 30), np.uint8),
                         relative_depth=relative, error=np.full((60, 80), 0.5, np.float32)))
    panels = look.frames.items[0].panels
    assert list(panels) == ['image', 'relative depth', 'error']
    image, depth, error = map(decode, panels.values())
    assert image.shape == depth.shape == error.shape == (60, 80, 3)
    assert np.abs(image[30, 20] - (200, 30, 30)).max() < 8
    assert np.abs(depth[30, 60] - 217).max() < 8  # grey
    red, green, blue = depth[30, 20]  # near: yellow
    assert min(red, green) > blue + 100
    red, green, blue = error[30, 40]  # too far: brown
    assert red > green > blue


def test_the_colours_of_metres_are_the_same_in_every_frame():
    pixels = []
    for far_m in (3.0, 15.0):
        depth_m = np.full((60, 80), far_m, np.float32)
        depth_m[:, :40] = 2.0
        look = RecordingLook()
        look.add(strip_frame(0, rgb=np.zeros((60, 80, 3), np.uint8), depth_m=depth_m))
        pixels.append(decode(look.frames.items[0].panels['metric depth'])[30, 20])
    assert np.abs(pixels[0] - pixels[1]).max() < 8


def test_a_metric_cloud_has_its_axes_ahead_and_up():
    """A point 1 m to the right, 2 m below and 3 m ahead of the camera; one is unknown."""
    look = RecordingLook()
    look.add(strip_frame(0, points=np.array([[[1, 2, 3], [np.nan] * 3]], np.float32),
                         point_colors=np.array([[[9, 8, 7], [0, 0, 0]]], np.uint8)))
    cloud = look.clouds.items[0]
    assert cloud.metric
    assert cloud.points.tolist() == [[1, 3, -2]] and cloud.colors.tolist() == [[9, 8, 7]]


def test_without_metres_the_cloud_is_a_relief_of_few_points():
    relative = np.tile(np.linspace(0, 1, 640, dtype=np.float32), (480, 1))
    relative[:240] = np.nan
    look = RecordingLook()
    look.add(strip_frame(0, rgb=np.zeros((480, 640, 3), np.uint8), relative_depth=relative))
    cloud = look.clouds.items[0]
    assert not cloud.metric
    assert MAX_POINTS / 4 < len(cloud.points) <= MAX_POINTS
    right, ahead, up = cloud.points.T
    np.testing.assert_allclose(ahead, right * 640 / 639, atol=1e-5)
    assert up.min() > 0 and up.max() <= 0.375  # the lower half


def test_errors_are_unknown_where_depth_or_truth_is():
    error = relative_error(np.array([2.2, np.nan, 1.0, -np.inf], np.float32),
                           np.array([2.0, 1.0, np.inf, 1.0], np.float32))
    np.testing.assert_allclose(error, [0.1, np.nan, np.nan, np.nan], rtol=1e-5)


@pytest.mark.parametrize('steps, carried_s, text', [
    (2, 0.0, 'run, T = 2'), (0, 0.34, 'carried for 0.3 s, T = 0; covers 97.0 %'),
    (1, 1.0, 'run, T = 1, begun 1.0 s before; covers 97.0 %')])
def test_run_and_carried_depth_are_told_apart(steps, carried_s, text):
    assert describe_depth(steps, carried_s, 0.97) == text
