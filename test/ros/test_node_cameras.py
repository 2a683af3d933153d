"""Several cameras of different rates and sizes: scheduling, and a camera that stops."""

from __future__ import annotations

from collections import Counter
import threading
import time

from checkpoints import make_checkpoint
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from node_harness import image, node_in_process
import numpy as np
import pytest
from sensor_msgs.msg import Image

from marigold_ros.depth.engine import DepthEngine
from marigold_ros.ros.camera_output import FramePacker
from marigold_ros.ros.diagnostics import Reporter

pytestmark = pytest.mark.node
RNG = np.random.default_rng(0)
# Frames that each camera sends while the engine works on one batch; `wide` is of another size.
SENT = {'fast': 6, 'wide': 3, 'slow': 1}
PIXELS = {camera: RNG.integers(0, 256, (120, 320 if camera == 'wide' else 160, 3), np.uint8)
          for camera in SENT}
ROUNDS = 4
# Longer than `max_carry_s`, so that nothing can be carried from a frame to the next one.
PAUSE_NS = 200_000_000


@pytest.fixture(scope='module')
def running(tmp_path_factory):
    checkpoint = make_checkpoint(tmp_path_factory.mktemp('models') / 'random')
    with node_in_process('-p', f'checkpoint:={checkpoint}', '-p', 'max_age_s:=60',
                         '-p', 'latency_cap_ms:=0', '-p', 'step_policy:=fixed',
                         '-p', 'max_carry_s:=0.1',
                         '-p', f'cameras:=[{", ".join(SENT)}]') as (node, robot):
        robot.listen('/depth_node/status', DiagnosticArray)
        for camera in SENT:
            robot.listen(f'/{camera}/depth_relative/image', Image)
            robot.advertise(f'/{camera}/image_raw', Image)
        yield node, robot


@pytest.fixture
def engine(monkeypatch):
    """Block every inference until it is released, and record the batches."""
    infer_batch, received = DepthEngine.infer_batch, Reporter.count_received
    engine = threading.Semaphore(0)
    engine.batches, engine.received = [], Counter()

    def wait(self, frames, *args, **kwargs):
        engine.batches.append([frame.shape[:2] for frame in frames])
        assert engine.acquire(timeout=60)
        return infer_batch(self, frames, *args, **kwargs)

    def count(self, camera):
        received(self, camera)
        engine.received[camera] += 1

    monkeypatch.setattr(DepthEngine, 'infer_batch', wait)
    monkeypatch.setattr(Reporter, 'count_received', count)
    yield engine
    engine.release(1000)


def test_every_camera_is_run_once_in_each_round(running, engine):
    """If every frame waits for a run of its own."""
    _, robot = running
    stamp_ns = time.time_ns() - 30 * 10 ** 9

    def send(camera: str) -> None:
        nonlocal stamp_ns
        before, stamp_ns = engine.received[camera], stamp_ns + PAUSE_NS
        robot.publish(f'/{camera}/image_raw', image(PIXELS[camera], stamp_ns))
        robot.until(lambda: engine.received[camera] > before, what=f'a frame of {camera}')

    def outcomes() -> Counter[tuple[str, str]]:
        return Counter((array.status[0].name.removeprefix('depth_node: '), array.status[0].message)
                       for array in robot.messages['/depth_node/status'])

    send('fast')  # holds the engine
    robot.until(lambda: engine.batches, what='a batch')
    for number in range(ROUNDS):
        for camera, count in SENT.items():
            for _ in range(count):
                send(camera)
        engine.release(2)  # the run under way and that of `wide`, which is then most overdue
        robot.until(lambda: len(engine.batches) == 2 * number + 3, what='the next batches')
    engine.release()
    robot.until(lambda: min(outcomes()[each, 'processed'] for each in ('slow', 'wide')) == ROUNDS,
                what='all rounds')

    assert outcomes() == {
        ('fast', 'processed'): ROUNDS + 1, ('wide', 'processed'): ROUNDS,
        ('slow', 'processed'): ROUNDS, ('fast', 'superseded'): 5 * ROUNDS,
        ('wide', 'superseded'): 2 * ROUNDS}
    # Frames of one size are one batch.
    assert engine.batches == [[(120, 160)], *[[(120, 320)], [(120, 160)] * 2] * ROUNDS]


def test_a_stopped_camera_is_stale_and_the_others_go_on(running):
    _, robot = running
    robot.listen('/diagnostics', DiagnosticArray)

    def level(camera: str) -> tuple[bytes, str]:
        robot.messages['/diagnostics'].clear()

        def latest():
            robot.publish('/fast/image_raw', image(PIXELS['fast'], time.time_ns()))
            robot.spin(0.1)
            return robot.messages['/diagnostics']

        status = next(each for each in robot.until(latest)[-1].status
                      if each.name == f'depth_node: {camera}')
        return status.level, status.message

    robot.retire('/slow/image_raw')
    robot.until(lambda: level('slow') == (DiagnosticStatus.STALE, 'no frames received'))
    assert level('fast')[0] != DiagnosticStatus.STALE
    robot.advertise('/slow/image_raw', Image)
    robot.messages['/depth_node/status'].clear()

    def processed() -> bool:
        robot.publish('/slow/image_raw', image(PIXELS['slow'], time.time_ns()))
        robot.spin(0.2)  # the node may match later than this side
        return any(array.status[0].name == 'depth_node: slow'
                   and array.status[0].message == 'processed'
                   for array in robot.messages['/depth_node/status'])

    robot.until(processed, what='a frame of the camera that came back')


def test_only_subscribed_outputs_are_computed(running, monkeypatch):
    _, robot = running
    made, pack = [], FramePacker.pack

    def note(*args, **kwargs):
        fields = pack(*args, **kwargs)
        made.append(set(fields))
        return fields

    def show() -> None:
        stamp_ns = time.time_ns()
        robot.publish('/slow/image_raw', image(PIXELS['slow'], stamp_ns))
        assert robot.status_of(stamp_ns)['outcome'] == 'processed'

    monkeypatch.setattr(FramePacker, 'pack', note)
    show()
    robot.listen('/slow/confidence', Image)
    robot.until(lambda: show() or made[-1] == {'depth_relative', 'confidence'})
    robot.ignore('/slow/confidence')
    robot.until(lambda: show() or made[-1] == {'depth_relative'})
    assert made[0] == {'depth_relative'}
