"""The two threads of the node: one processes the frames, the other owns the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
import gc
import math
import time
import traceback
from typing import TYPE_CHECKING

from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

from marigold_ros.depth.adaptive import (
    AdaptiveConfig,
    AdaptiveDepth,
    AdaptivePrediction,
    Frame,
)
from marigold_ros.depth.errors import DepthError, InputError, MarigoldError
from marigold_ros.depth.types import Matrix, RgbImage
from marigold_ros.geometry.poses import without_slash
from marigold_ros.memory import return_freed_memory
from marigold_ros.metric.types import measured_scale
from marigold_ros.ros.calibration import Calibration, CalibrationCache
from marigold_ros.ros.camera_output import CameraOutputs, FramePacker, METRIC_OUTPUTS
from marigold_ros.ros.conversions import check_pixel_count, make_header, rgb_from_message
from marigold_ros.ros.diagnostics import (
    explain_missing_scale,
    explain_stale_depth,
    format_processed_frame,
    NO_SCALE,
    NO_SIGMA,
    Reporter,
)
from marigold_ros.ros.frame_buffer import NewestFrames, ReceivedFrame
from marigold_ros.ros.metric_inputs import MetricInputs
from marigold_ros.ros.parameters import Settings
from marigold_ros.ros.stamps import StampMonitor

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine

# Image size (H, W) for the warm-up, if no camera_info has told the cameras' real sizes.
WARM_UP_SIZE = (480, 640)
# On a CPU that is busy otherwise, frames go before the networks, which take longer then.
NETWORKS_NICENESS = 10


@dataclass(frozen=True)
class CameraResources:
    """The objects that the worker needs for each camera."""

    calibrations: CalibrationCache
    outputs: CameraOutputs
    packer: FramePacker = field(default_factory=FramePacker)


@dataclass(frozen=True)
class _PreparedFrame:
    """A frame that is ready for inference."""

    frame: ReceivedFrame
    timed: bool  # whether its stamp carries time
    rgb: RgbImage  # rectified
    calibration: Calibration
    pose: Matrix | None  # of the optical frame in a fixed one
    pose_origin: str  # that fixed frame, or why the pose is unknown
    outputs: frozenset[str]  # with a subscriber
    age_s: float  # since the receipt, when the processing started
    stamp_age_s: float  # since the stamp, when the processing started
    seconds: dict[str, float]  # stage -> duration so far

    def as_frame(self) -> Frame:
        """Return what AdaptiveDepth needs of it."""
        frame = self.frame
        return Frame(frame.camera, self.rgb, frame.stamp_ns if self.timed else 0,
                     frame.received_s,
                     None if self.calibration.problem else self.calibration.camera.K, self.pose)


class DepthWorker:
    """
    Process the newest frame of every camera in a thread of its own, and publish its outputs.

    The networks run in a second thread, so that no frame waits for them but those into which no
    depth can be carried.

    Parameters
    ----------
    node : Node
        Supplies the clock and the context.
    settings : Settings
    cameras : dict
        Camera -> CameraResources.
    metric_inputs : MetricInputs
        The caller opens and closes it.
    reporter : Reporter
    """

    def __init__(self, node: Node, settings: Settings, cameras: dict[str, CameraResources],
                 metric_inputs: MetricInputs, reporter: Reporter) -> None:
        """Start the threads; `load` loads the engine."""
        self._context, self._logger = node.context, node.get_logger()
        self._cameras, self._reporter = cameras, reporter
        self.metric_inputs = metric_inputs
        self._stamps = StampMonitor(node, reporter)
        self._newest = NewestFrames()
        self._frames = ThreadPoolExecutor(max_workers=1, thread_name_prefix='frames')
        self._networks = ThreadPoolExecutor(max_workers=1, thread_name_prefix='networks')
        self._closed = False
        self._settings = settings
        self._adaptive: AdaptiveDepth | None = None
        self._unpublished: dict[Frame, _PreparedFrame] = {}
        self._batch_limits: dict[tuple[int, int], int] = {}

    # Called from the executor's thread

    @property
    def adaptive(self) -> AdaptiveDepth:
        """
        Return the adaptive depth estimation, which holds the engine.

        Raises
        ------
        RuntimeError
            Before `load` and after `close`.
        """
        if self._adaptive is None:
            raise RuntimeError('no engine is loaded')
        return self._adaptive

    def load(self, read_image_sizes: Callable[[], list[tuple[int, int]]]) -> None:
        """
        Load the engine and warm it up, in the thread of the networks.

        Parameters
        ----------
        read_image_sizes : callable
            Returns the cameras' image sizes (H, W) that are known when the engine is loaded; the
            networks are prepared for them.

        Raises
        ------
        CheckpointError, ConfigError
            See `DepthEngine.load`.
        ExternalShutdownException
            If the context is shut down while the engine is loaded.
        """
        loading = self._networks.submit(self._load, read_image_sizes)
        self._has_ended(loading)
        loading.result()

    def submit(self, frame: ReceivedFrame) -> None:
        """Queue a frame; it supersedes an older one of its camera that is still waiting."""
        superseded = self._newest.put(frame)
        if superseded is not None:
            self._reporter.report_dropped(superseded, 'superseded')
        self._do_in_turn(self._process_newest)

    def apply_settings(self, settings: Settings) -> None:
        """Use other settings from the next frame on."""
        self._do_in_turn(self._apply_settings, settings)

    def reset(self) -> None:
        """Reset all state from earlier frames before the next frame."""
        self._do_in_turn(self._reset)

    def reset_scale(self) -> None:
        """Discard the scale of every camera before the next frame."""
        self._do_in_turn(self.metric_inputs.reset_scale)

    def _do_in_turn(self, call: Callable[..., object], *args: object) -> Future[object]:
        """Call a function in the thread of the frames, and log what it raises."""
        done = self._frames.submit(call, *args)
        done.add_done_callback(self._log_failure)
        return done

    def _log_failure(self, done: Future[object]) -> None:
        err = None if done.cancelled() else done.exception()
        if err is not None and self._context.ok():
            self._reporter.log_error(_describe(err))

    def drop_waiting(self, reason: str) -> Future[object]:
        """Drop the waiting frames; the result comes when the current one is published."""
        for frame in self._newest.take():
            self._reporter.report_dropped(frame, reason)
        return self._do_in_turn(self._drop_waiting, reason)

    def wait_for_networks(self, timeout_s: float) -> bool:
        """
        Wait for the end of a run, and return whether it has ended in time.

        Raises
        ------
        ExternalShutdownException
            If the context is shut down meanwhile.
        """
        return self._has_ended(self._networks.submit(lambda: None), timeout_s)

    def _has_ended(self, future: Future[None], timeout_s: float = math.inf) -> bool:
        """Wait for what runs in the thread of the networks, but not after a shutdown."""
        started_s = time.monotonic()
        while not wait([future], timeout=0.1).done:
            if not self._context.ok():
                raise ExternalShutdownException
            if time.monotonic() - started_s > timeout_s:
                return False
        return True

    def close(self, timeout_s: float | None = None) -> bool:
        """
        Unload the engine and end the threads; further calls do nothing.

        Parameters
        ----------
        timeout_s : float or None
            How long to wait for the end of a load or a run, which cannot be interrupted; None
            waits without limit.

        Returns
        -------
        bool
            Whether the threads have ended.
        """
        self._newest.take()
        self._frames.shutdown(cancel_futures=True)  # never waits for the networks
        unloading = None if self._closed else self._networks.submit(self._unload_engine)
        self._closed = True
        self._networks.shutdown(wait=timeout_s is None)
        return unloading is None or bool(wait([unloading], timeout=timeout_s).done)

    # Called in the thread of the networks

    def _load(self, read_image_sizes: Callable[[], list[tuple[int, int]]]) -> None:
        # Imported here, because torch takes seconds and the node must be discoverable before.
        with _without_garbage_collection():
            from marigold_ros.depth.device import (
                lower_priority,
                reserve_one_core,
                start_opencv_threads,
            )
            from marigold_ros.depth.engine import DepthEngine

        reserve_one_core()
        engine = DepthEngine(self._settings.engine_config())
        start_opencv_threads()
        lower_priority(NETWORKS_NICENESS)  # before torch starts threads of its own
        adaptive = AdaptiveDepth(
            engine, self._adaptive_config(engine), list(self._cameras), networks=self._networks,
            on_run_end=self._process_soon)
        adaptive.warm_up(self._sizes_to_prepare(engine, read_image_sizes()),
                         range(1, len(self._cameras) + 1))
        # From now on a frame of another size must not wait until it is compiled.
        engine.prepare_in_background()
        return_freed_memory()  # of the weights before they were folded, and of the compiler
        self._adaptive = adaptive

    def _process_soon(self) -> None:
        with suppress(RuntimeError):  # the thread has been ended
            self._do_in_turn(self._process_newest)

    def _adaptive_config(self, engine: DepthEngine) -> AdaptiveConfig:
        return self._settings.adaptive_config(engine.checkpoint_info.max_useful_steps)

    def _sizes_to_prepare(self, engine: DepthEngine, announced: Sequence[tuple[int, int]]
                          ) -> list[tuple[int, int]]:
        """Return one announced size for each at which the engine processes images."""
        found: dict[tuple[int, int], tuple[int, int]] = {}
        for height, width in announced:
            try:
                check_pixel_count(height, width, self._settings.max_input_pixels)
                found.setdefault(engine.padded_size(height, width), (height, width))
            except InputError as err:
                self._logger.warning(f'a camera_info announces images that cannot be processed: '
                                     f'{err}')
        return list(found.values()) or [WARM_UP_SIZE]

    def _unload_engine(self) -> None:
        if self._adaptive is not None:
            self._adaptive.engine.close()
        self._adaptive = None

    # Called in the thread of the frames

    def _apply_settings(self, settings: Settings) -> None:
        if settings.odom_frame != self._settings.odom_frame:
            self._drop_waiting('reset')
            self.adaptive.discard_depth()  # its poses are those of another frame
            self.metric_inputs.reset_scale()
        self._settings = settings
        self.adaptive.configure(self._adaptive_config(self.adaptive.engine))
        self.metric_inputs.configure(settings.scale_config(), settings.max_input_pixels)

    def _reset(self) -> None:
        self._drop_waiting('reset')
        self.adaptive.reset()
        self._stamps.reset()
        self.metric_inputs.reset()

    def _drop_waiting(self, reason: str) -> None:
        """Drop the frames that have no depth yet."""
        self.adaptive.discard_waiting()
        for prepared in self._take_forgotten():
            self._reporter.report_dropped(prepared.frame, reason)

    def _take_forgotten(self) -> list[_PreparedFrame]:
        """Return the frames that will get no depth, as AdaptiveDepth does not keep them."""
        forgotten = self._unpublished.keys() - self.adaptive.waiting_frames
        return [self._unpublished.pop(frame) for frame in forgotten]

    # The path of a frame, in the thread of the frames

    def _process_newest(self) -> None:
        """Process the newest frames, and those whose run has ended."""
        # 1. Decode and rectify the images, or drop the frames.
        prepared_frames: list[_PreparedFrame] = []
        for received in self._newest.take():
            with self._drop_on_error(received):
                prepared = self._prepare(received)
                if isinstance(prepared, _PreparedFrame):
                    prepared_frames.append(prepared)
                else:
                    self._reporter.report_dropped(received, *prepared)

        # 2. Carry their depth, or let them wait for that of the networks; publish what is known.
        frames = {each.as_frame(): each for each in prepared_frames}
        self._unpublished.update(frames)
        try:
            for frame, prediction in self.adaptive.advance(frames):
                prepared = self._unpublished.pop(frame)
                with self._drop_on_error(prepared.frame):
                    self._publish(prepared, prediction)
        except DepthError as err:
            self._report_error(err)
        for prepared in self._take_forgotten():
            self._reporter.report_dropped(prepared.frame, 'superseded')
        self._report_batch_limits()

    def _prepare(self, frame: ReceivedFrame) -> _PreparedFrame | tuple[str, ...]:
        """Prepare a frame for inference, or return the reason to drop it and its detail."""
        # 1. Check the stamp and whether an output has a subscriber.
        age_s = time.monotonic() - frame.received_s
        seconds: dict[str, float] = {}
        settings = self._settings
        if self._stamps.jumped_back(frame):
            self._reset()
        stamp_age_s = self._stamps.age_s(frame)
        timed = self._stamps.has_time(frame)
        too_old = timed and self._stamps.too_old_reason(frame.camera, stamp_age_s,
                                                        settings.max_age_s)
        if too_old:
            return 'too_old', too_old
        outputs = self._cameras[frame.camera].outputs.subscribed()
        if not outputs:
            return ('unsubscribed',)
        if outputs <= METRIC_OUTPUTS and settings.scale_sources == ('none',):
            return 'no_scale', NO_SCALE

        # 2. Decode the message to [H, W, 3].
        try:
            with _timed(seconds, 'read_image'):
                rgb = rgb_from_message(frame.message, compressed=frame.compressed,
                                       max_pixels=settings.max_input_pixels)
            self.adaptive.engine.padded_size(*rgb.shape[:2])  # checks it
        except InputError as err:
            return 'bad_image', str(err)

        # 3. Rectify the image if its camera_info has distortion.
        calibration = self._find_calibration(frame, rgb)
        if calibration.problem and outputs <= METRIC_OUTPUTS:
            return 'no_calibration', calibration.problem
        with _timed(seconds, 'rectify'):
            if calibration.rectifier is not None:
                rgb = calibration.rectifier.rectify(rgb)

        # 4. Find where the camera is, if TF tells it already.
        with _timed(seconds, 'find_pose'):
            pose, pose_origin = self.metric_inputs.find_pose(
                frame.frame_id, frame.stamp_ns if timed else 0)
        return _PreparedFrame(frame, timed, rgb, calibration, pose, pose_origin, outputs, age_s,
                              stamp_age_s, seconds)

    def _find_calibration(self, frame: ReceivedFrame, rgb: RgbImage) -> Calibration:
        """Return the calibration of an image, and report what is invalid about it."""
        cache = self._cameras[frame.camera].calibrations
        calibration = cache.find(frame.stamp_ns, *rgb.shape[:2])
        if calibration.problem:
            self._reporter.report_event(
                frame.camera, 'no_calibration',
                f'{calibration.problem}; only relative depth is published')
        elif not calibration.by_stamp:
            self._reporter.report_event(frame.camera, 'camera_info_not_by_stamp')
        if without_slash(calibration.frame_id) not in ('', without_slash(frame.frame_id)):
            self._reporter.report_event(
                frame.camera, 'camera_info_of_other_frame', 'the frame_id of the camera_info is '
                f'{calibration.frame_id!r}, that of the image is {frame.frame_id!r}; the '
                "camera_info is used, and the outputs have the image's frame_id")
        return calibration

    def _publish(self, prepared: _PreparedFrame, prediction: AdaptivePrediction) -> None:
        """Compute and publish the outputs of one frame, and report it."""
        frame, calibration, rgb = prepared.frame, prepared.calibration, prepared.rgb
        camera, settings, seconds = self._cameras[frame.camera], self._settings, prepared.seconds

        # 1. Mask the pixels that the raw image does not cover.
        with _timed(seconds, 'rectify'):
            prediction = calibration.mask_uncovered(prediction)

        # 2. Update the metric scale; there are no metric outputs of stale depth.
        with _timed(seconds, 'fit_scale'):
            report = self.metric_inputs.update_scale(
                frame if prepared.timed else replace(frame, stamp_ns=0), rgb, calibration,
                prediction, prepared.pose, prepared.pose_origin)
        scale = report.metric_scale
        self.adaptive.set_scale(frame.camera, measured_scale(scale))
        if prediction.decision.stale:
            scale = None
            self._reporter.report_event(frame.camera, 'stale', explain_stale_depth(
                prediction.decision.carried_s, self.adaptive.run_s))
        elif scale is None and not calibration.problem and prepared.outputs & METRIC_OUTPUTS:
            self._reporter.report_event(frame.camera, 'no_scale', explain_missing_scale(report))
        elif scale is not None and scale.assumed and 'sigma' in prepared.outputs:
            self._reporter.report_event(frame.camera, 'no_sigma', NO_SIGMA, warn=False)

        # 3. Pack the outputs that have a subscriber.
        with _timed(seconds, 'pack'):
            fields = camera.packer.pack(
                prepared.outputs, rgb, calibration.camera.K, prediction, scale,
                settings.depth_filter(), settings.point_filter(),
                depth_encoding=settings.depth_encoding)

        # 4. Publish the messages and the status.
        with _timed(seconds, 'publish'):
            camera.outputs.publish(
                make_header(frame.stamp_ns, frame.frame_id), calibration.camera, fields)
        latency_s = time.monotonic() - frame.received_s
        if 0.0 < settings.latency_cap_ms < 1e3 * latency_s:
            self._reporter.report_event(frame.camera, 'late')
        self._reporter.report_processed(frame, format_processed_frame(
            prediction, report, pose_origin=prepared.pose_origin, age_s=prepared.age_s,
            stamp_age_s=prepared.stamp_age_s, latency_s=latency_s, seconds=seconds))

    def _report_error(self, err: DepthError) -> None:
        """Drop the frames that waited for a run that has failed; carried depth goes on."""
        if not self._context.ok():
            return  # the process is shutting down
        text, cameras = _describe(err), set(err.cameras)
        for prepared in self._take_forgotten():
            if prepared.frame.camera in err.cameras:
                self._reporter.report_dropped(prepared.frame, 'engine_error', text)
                cameras.discard(prepared.frame.camera)
            else:
                self._reporter.report_dropped(prepared.frame, 'superseded')
        for camera in cameras:
            self._reporter.report_event(camera, 'engine_error', text)

    def _report_batch_limits(self) -> None:
        """Say so if the device ran out of memory."""
        limits = dict(self.adaptive.engine.batch_limits)
        if limits != self._batch_limits:
            self._batch_limits = limits
            for camera in self._cameras:
                self._reporter.report_event(
                    camera, 'out_of_memory', 'the device ran out of memory; the batch size is now '
                    f'limited, by padded image size, to {limits}')

    @contextmanager
    def _drop_on_error(self, frame: ReceivedFrame) -> Iterator[None]:
        """Drop a frame when the block raises an exception."""
        try:
            yield
        except Exception as err:
            if self._context.ok():  # publishing fails while the process shuts down
                self._reporter.report_dropped(frame, 'engine_error', _describe(err))


def _describe(err: BaseException) -> str:
    """Describe an error, with the traceback of one that is not expected."""
    cause, text = err, f'{type(err).__name__}: {err}'
    if isinstance(err, DepthError) and err.__cause__ is not None:
        cause, text = err.__cause__, str(err)
    if isinstance(cause, MarigoldError):
        return text
    return ''.join([f'{text}\n', *traceback.format_exception(cause)])


@contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Do not search the objects of imports for garbage, which takes a quarter of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the duration of a block to its stage."""
    started_s = time.monotonic()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - started_s
