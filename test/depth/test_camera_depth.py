"""CameraDepth: how long depth is valid, when it starts afresh, and the metres of its motion."""

from __future__ import annotations

from adaptive_fixtures import scene
import numpy as np
import pytest

from marigold_ros.depth.camera_depth import CameraDepth, Frame
from marigold_ros.depth.complexity import reduce_to_grey
from marigold_ros.depth.types import DepthPrediction, StageTiming

K = np.array([[300.0, 0.0, 160.0], [0.0, 300.0, 120.0], [0.0, 0.0, 1.0]])
PAUSE_S = 2.0
RAMP = np.tile(np.linspace(0.2, 0.8, 320, dtype=np.float32), (240, 1))


class Camera:
    """A camera before a standing scene, with its CameraDepth."""

    def __init__(self):
        self.depth, self.now_s = CameraDepth(), 10.0

    def show(self, rgb=None, after_s=0.1, forward_m=None, has_time=True):
        """Advance to a frame, of a camera that is so far along its axis."""
        self.now_s += after_s
        pose = None
        if forward_m is not None:
            pose = np.eye(4)
            pose[2, 3] = forward_m
        rgb = scene() if rgb is None else rgb
        frame = Frame('camera', rgb, round(1e9 * self.now_s) if has_time else 0, self.now_s, K,
                      pose)
        self.depth.advance(frame, reduce_to_grey(rgb), PAUSE_S)

    def run(self, relative=RAMP, seconds=0.1):
        """Run the networks on the last frame, and return the change of the gauge."""
        self.depth.begin_run()
        return self.depth.finish_run(predict(relative), seconds)

    def carry(self):
        """Return the carried depth in the middle of the image."""
        return float(self.depth.carry().depth[120, 160])


def predict(relative):
    return DepthPrediction(relative, None, None, None, 1, 'schedule',
                           StageTiming(0.0, 0.0, 0.0, 0.0, 0.0))


@pytest.fixture
def camera():
    return Camera()


@pytest.mark.parametrize('runs_s, valid_s', [
    ([], 2.0), ([0.5], 2.0), ([1.5], 3.0), ([1.5, 1.5, 60.0], 3.0), ([0.2, 60.0, 0.2], 2.0),
    ([0.2, 60.0], 2.0), ([60.0, 0.2], 2.0),
    ([60.0, 1.5, 1.5, 1.5, 1.2, 1.2], 3.0)])
def test_depth_is_valid_for_twice_the_median_of_the_latest_runs(camera, runs_s, valid_s):
    for seconds in runs_s:
        camera.show()
        camera.run(seconds=seconds)
    assert camera.depth.longest_carry_s(2.0) == pytest.approx(valid_s)


@pytest.mark.parametrize('runs_s, jitter_s, period_s, due_s', [
    ([0.05], 0.0, 0.1, 2.0), ([0.3], 0.0, 0.1, 1.8), ([0.31], 0.0, 0.1, 1.7),
    ([0.3], 0.0, 0.5, 2.0),
    ([0.3, 0.05], 0.0, 0.1, 1.8),  # as slow as the slowest run
    ([0.3], 0.08, 0.1, 1.68)])  # and as late as the latest frame
def test_a_run_is_due_in_time(camera, runs_s, jitter_s, period_s, due_s):
    """The frames until its end are at most 2 s after the run whose depth they have."""
    for seconds in runs_s:
        camera.show(after_s=period_s)
        camera.run(seconds=seconds)
    camera.show(after_s=period_s + jitter_s)
    frames = 1
    while not camera.depth.is_run_due(2.0) and frames < 50:
        # The latest frame stays one of those that are remembered.
        camera.show(after_s=period_s + jitter_s * (frames % 2 == 0))
        frames += 1
    assert camera.depth.carried_s == pytest.approx(due_s)


@pytest.mark.parametrize('settings', [
    {'after_s': -0.1}, {'after_s': 2.5}, {'rgb': scene()[:120]}])
def test_it_starts_afresh(camera, settings):
    camera.show()
    camera.run()
    camera.show()
    assert camera.depth.can_carry
    camera.depth.begin_run()
    camera.show(**settings)
    assert not camera.depth.can_carry
    assert camera.depth.carried_s == 0.0
    # What comes of the run is of another scene.
    assert camera.depth.finish_run(predict(RAMP), 0.1) is None
    assert not camera.depth.can_carry


def test_without_stamps_the_receipt_tells_the_time(camera):
    camera.show(has_time=False)
    camera.run()
    camera.show(after_s=0.4, has_time=False)
    assert camera.depth.carried_s == pytest.approx(0.4)


def test_a_run_that_fails_leaves_its_reason(camera):
    camera.show()
    camera.run()
    camera.show(255 - scene())
    reason = camera.depth.largest_change
    assert reason > 0.5
    camera.depth.begin_run()
    assert camera.depth.largest_change == 0.0
    camera.show(255 - scene())
    camera.depth.fail_run()
    assert camera.depth.largest_change == reason


def test_depth_falls_by_what_the_camera_drives(camera):
    """Metric depth is 4 m * relative + 1 m."""
    camera.show(forward_m=0.0)
    camera.run()
    camera.depth.set_scale((4.0, 1.0))
    relative = camera.carry()
    camera.show(forward_m=0.4)
    assert camera.carry() == pytest.approx(relative - 0.1, abs=1e-3)
    camera.show()  # where it is now, is unknown
    assert camera.carry() == pytest.approx(relative - 0.1, abs=1e-3)
    camera.depth.set_scale(None)
    assert camera.carry() == pytest.approx(relative, abs=1e-3)


def test_metres_stay_when_a_run_has_another_gauge(camera):
    """A run whose relative depth is half as large, plus 0.1, has twice the scale."""
    camera.show(forward_m=0.0)
    camera.run()
    camera.depth.set_scale((4.0, 1.0))
    camera.show(forward_m=0.0)
    change = camera.run(0.5 * RAMP + np.float32(0.1))
    assert (change.factor, change.offset) == pytest.approx((0.5, 0.1), abs=1e-3)
    relative = camera.carry()
    camera.show(forward_m=0.4)
    assert camera.carry() == pytest.approx(relative - 0.05, abs=1e-3)


def test_a_gauge_that_cannot_be_compared_has_no_metres_yet(camera):
    camera.show(forward_m=0.0)
    camera.run()
    camera.depth.set_scale((4.0, 1.0))
    camera.show(forward_m=0.0)
    assert camera.run(RAMP[:, ::-1].copy()) is None
    relative = camera.carry()
    camera.show(forward_m=0.4)
    assert camera.carry() == pytest.approx(relative, abs=1e-3)
    # The first fit holds what has moved so far; depth changes by what comes after.
    camera.depth.set_scale((4.0, 1.0))
    camera.show(forward_m=0.8)
    assert camera.carry() == pytest.approx(relative - 0.1, abs=1e-3)
