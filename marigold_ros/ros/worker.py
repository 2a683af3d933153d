"""The one thread that owns the engine, and a frame's walk through it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
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
    SkippedFrame,
)
from marigold_ros.depth.errors import InputError, MarigoldError
from marigold_ros.depth.types import RgbImage
from marigold_ros.ros.calibration import Calibration, CalibrationCache
from marigold_ros.ros.camera_output import CameraOutputs, FramePacker, METRIC_OUTPUTS
from marigold_ros.ros.conversions import header_of, rgb_from_message
from marigold_ros.ros.diagnostics import NO_SCALE, processed_values, Reporter, why_no_metres
from marigold_ros.ros.frame_buffer import NewestFrames, ReceivedFrame
from marigold_ros.ros.metric_inputs import MetricInputs
from marigold_ros.ros.parameters import Settings
from marigold_ros.ros.stamps import StampWatch

if TYPE_CHECKING:
    from marigold_ros.depth.engine import DepthEngine

# What a camera is taken to send before it has sent anything, (H, W).
WARM_UP_SIZE = (480, 640)


@dataclass(frozen=True)
class CameraPort:
    """One camera as the worker sees it: what is known of it, and where its outputs go."""

    calibrations: CalibrationCache
    outputs: CameraOutputs
    packer: FramePacker = field(default_factory=FramePacker)


@dataclass(frozen=True)
class _Prepared:
    """A frame that is worth an inference, and the seconds that its stages took so far."""

    frame: ReceivedFrame
    rgb: RgbImage
    size: tuple[int, int]  # padded, at which it is processed
    calibration: Calibration
    wanted: frozenset[str]
    age_s: float
    stamp_age_s: float
    seconds: dict[str, float]


class DepthWorker:
    """
    Turn the newest frame of every camera into published depth, in one thread of its own.

    Parameters
    ----------
    node : Node
        Whose clock is asked for the age of frames.
    settings : Settings
    cameras : dict
        Camera -> CameraPort.
    metric_inputs : MetricInputs
        Opened and closed by its owner.
    reporter : Reporter
    """

    def __init__(self, node: Node, settings: Settings, cameras: dict[str, CameraPort],
                 metric_inputs: MetricInputs, reporter: Reporter) -> None:
        """Start the thread; `load` fills it with an engine."""
        self._context, self._cameras, self._reporter = node.context, cameras, reporter
        self.metric_inputs = metric_inputs
        self._stamps = StampWatch(node, reporter)
        self._newest = NewestFrames()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix='depth_worker')
        self._closed = False
        self._settings = settings
        self._adaptive: AdaptiveDepth | None = None

    # Called from the executor's thread

    @property
    def adaptive(self) -> AdaptiveDepth:
        """
        Depth of the cameras over time, and its engine.

        Raises
        ------
        RuntimeError
            Before `load` and after `close`.
        """
        if self._adaptive is None:
            raise RuntimeError('no engine is loaded')
        return self._adaptive

    def load(self) -> None:
        """
        Load the engine and warm it up, in the worker's thread.

        Raises
        ------
        CheckpointError, ConfigError
            As `DepthEngine.load`.
        ExternalShutdownException
            If the process is asked to stop meanwhile.
        """
        loading = self._pool.submit(self._load)
        while not wait([loading], timeout=0.1).done:
            if not self._context.ok():
                raise ExternalShutdownException
        loading.result()

    def put(self, frame: ReceivedFrame) -> None:
        """Offer a frame; it supersedes an older one of its camera that still waits."""
        superseded = self._newest.put(frame)
        if superseded is not None:
            self._reporter.dropped(superseded, 'superseded')
        self._pool.submit(self._process_pending)

    def apply(self, settings: Settings) -> None:
        """Use other settings from the next frame on."""
        self._pool.submit(self._apply, settings)

    def reset(self) -> None:
        """Forget what earlier frames taught, before the next frame."""
        self._pool.submit(self._reset)

    def reset_scale(self) -> None:
        """Forget the scale that earlier frames taught, before the next frame."""
        self._pool.submit(self.metric_inputs.reset)

    def drain(self) -> None:
        """Drop what waits and return when the frame under way is done."""
        for frame in self._newest.take():
            self._reporter.dropped(frame, 'inactive')
        self._pool.submit(lambda: None).result()

    def close(self, patience_s: float | None = None) -> bool:
        """
        End the thread and let go of the engine; harmless the second time.

        Parameters
        ----------
        patience_s : float or None
            How long to wait for what cannot be interrupted, a denoising step or a load; None
            waits for its end.

        Returns
        -------
        bool
            Whether the thread has ended.
        """
        self._newest.take()
        last = None if self._closed else self._pool.submit(self._unload)
        self._closed = True
        self._pool.shutdown(wait=patience_s is None)
        return last is None or bool(wait([last], timeout=patience_s).done)

    # Called in the worker's thread

    def _load(self) -> None:
        # Imported here, for it takes seconds in which the node should be there already.
        from marigold_ros.depth.device import reserve_one_core
        from marigold_ros.depth.engine import DepthEngine

        reserve_one_core()
        config = self._settings.engine_config()
        engine = DepthEngine.load(
            config.checkpoint, device=config.device, dtype=config.dtype,
            processing_resolution=config.processing_resolution, compile=config.compile)
        self._adaptive = AdaptiveDepth(engine, self._adaptive_config(engine), list(self._cameras))
        self._adaptive.warm_up([WARM_UP_SIZE], range(1, len(self._cameras) + 1))

    def _adaptive_config(self, engine: DepthEngine) -> AdaptiveConfig:
        return self._settings.adaptive_config(engine.checkpoint_info.max_useful_steps)

    def _unload(self) -> None:
        self._adaptive = None

    def _apply(self, settings: Settings) -> None:
        self._settings = settings
        self.adaptive.configure(self._adaptive_config(self.adaptive.engine))
        self.metric_inputs.configure(settings.scale_config(), settings.max_input_pixels)

    def _reset(self) -> None:
        self.adaptive.reset()
        self._stamps.reset()
        self.metric_inputs.reset()

    # A frame's walk, in the worker's thread

    def _process_pending(self) -> None:
        """Process what waits; frames that are processed at one size are one batch."""
        # 1. Read and rectify what somebody wants to see of fresh frames.
        by_size: defaultdict[tuple[int, int], list[_Prepared]] = defaultdict(list)
        for frame in self._newest.take():
            with self._drop_on_error({frame.camera: frame}):
                prepared = self._prepare(frame)
                if isinstance(prepared, _Prepared):
                    by_size[prepared.size].append(prepared)
                else:
                    self._reporter.dropped(frame, *prepared)

        # 2. A batch is published before the next is begun.
        for batch in by_size.values():
            pending = {each.frame.camera: each.frame for each in batch}
            with self._drop_on_error(pending):
                self._process_batch(batch, pending)

    def _prepare(self, frame: ReceivedFrame) -> _Prepared | tuple[str, ...]:
        """Make a frame ready for inference, or return the reason to drop it and its detail."""
        # 1. Is it new, and does anybody want it?
        age_s = time.monotonic() - frame.received_s
        seconds: dict[str, float] = {}
        settings, outputs = self._settings, self._cameras[frame.camera].outputs
        if self._stamps.jumped_back(frame):
            self._reset()
        stamp_age_s = self._stamps.age_s(frame)
        too_old = self._stamps.too_old(frame, settings.max_age_s)
        if too_old:
            return 'too_old', too_old
        wanted = outputs.wanted()
        if not wanted:
            return ('unsubscribed',)
        if wanted <= METRIC_OUTPUTS and settings.scale_source == 'none':
            return 'no_scale', NO_SCALE

        # 2. Message -> [H,W,3].
        try:
            with _timed(seconds, 'read_image'):
                rgb = rgb_from_message(frame.message, compressed=frame.compressed,
                                       max_pixels=settings.max_input_pixels)
            size = self.adaptive.engine.padded_size(*rgb.shape[:2])
        except InputError as err:
            return 'bad_image', str(err)

        # 3. Rectified, if the camera_info asks for it.
        calibration = self._find_calibration(frame, rgb)
        if calibration.problem and wanted <= METRIC_OUTPUTS:
            return 'no_calibration', calibration.problem
        with _timed(seconds, 'rectify'):
            if calibration.rectifier is not None:
                rgb = calibration.rectifier.rectify(rgb)
        return _Prepared(frame, rgb, size, calibration, wanted, age_s, stamp_age_s, seconds)

    def _find_calibration(self, frame: ReceivedFrame, rgb: RgbImage) -> Calibration:
        """Find the camera_info of an image, and report what is wrong with it."""
        cache = self._cameras[frame.camera].calibrations
        calibration = cache.find(frame.stamp_ns, *rgb.shape[:2])
        if calibration.problem:
            self._reporter.event(frame.camera, 'no_calibration', f'{calibration.problem}; only '
                                 'relative depth is published')
        elif not calibration.by_stamp:
            self._reporter.event(frame.camera, 'camera_info_not_by_stamp')
        if calibration.frame_id not in ('', frame.frame_id):
            self._reporter.event(
                frame.camera, 'camera_info_of_other_frame', f'camera_info is of frame '
                f'{calibration.frame_id!r}, the image of {frame.frame_id!r}; it is used, and what '
                "is published is in the image's frame")
        return calibration

    def _process_batch(self, batch: list[_Prepared], pending: dict[str, ReceivedFrame]) -> None:
        """Infer and publish a batch; a frame leaves `pending` when its fate is reported."""
        # 1. Decide the steps of each frame and infer them together.
        adaptive = self.adaptive
        limits = dict(adaptive.engine.batch_limits)
        results = adaptive.process([
            Frame(each.frame.camera, each.rgb, each.frame.stamp_ns, each.frame.received_s)
            for each in batch])
        if adaptive.engine.batch_limits != limits:
            self._reporter.event(batch[0].frame.camera, 'out_of_memory',
                                 'the device ran out of memory; images at once from now on, by '
                                 f'padded size: {adaptive.engine.batch_limits}')

        # 2. Publish each with its input's header.
        for each, result in zip(batch, results):
            if isinstance(result, SkippedFrame):
                self._reporter.dropped(each.frame, 'late', result.choice.reason)
            else:
                self._publish(each, result)
            del pending[each.frame.camera]

        # 3. Learn what it cost.
        adaptive.observe(time.monotonic())

    def _publish(self, prepared: _Prepared, prediction: AdaptivePrediction) -> None:
        """Make and publish the outputs of one frame, and its status."""
        frame, calibration, rgb = prepared.frame, prepared.calibration, prepared.rgb
        camera, settings, seconds = self._cameras[frame.camera], self._settings, prepared.seconds

        # 1. What the raw image did not cover is unknown.
        with _timed(seconds, 'rectify'):
            prediction = calibration.mask_uncovered(prediction)

        # 2. Metres, if they are known.
        with _timed(seconds, 'fit_scale'):
            report = self.metric_inputs.find_scale(frame, rgb, calibration, prediction)
        if report.metric is None and not calibration.problem and prepared.wanted & METRIC_OUTPUTS:
            self._reporter.event(frame.camera, 'no_scale', why_no_metres(report))

        # 3. The fields of the messages that somebody listens to.
        with _timed(seconds, 'pack'):
            fields = camera.packer.pack(
                prepared.wanted, rgb, calibration.camera.K, prediction, report.metric,
                settings.depth_filter(), depth_encoding=settings.depth_encoding,
                point_stride=settings.point_stride)

        # 4. The messages, and how the frame went.
        with _timed(seconds, 'publish'):
            camera.outputs.publish(
                header_of(frame.stamp_ns, frame.frame_id), calibration.camera, fields)
        self._reporter.processed(frame, processed_values(
            prediction, report, age_s=prepared.age_s, stamp_age_s=prepared.stamp_age_s,
            latency_s=time.monotonic() - frame.received_s, seconds=seconds))

    @contextmanager
    def _drop_on_error(self, pending: Mapping[str, ReceivedFrame]) -> Iterator[None]:
        """Let whatever goes wrong cost the frames that are still pending then, and no others."""
        try:
            yield
        except Exception as err:
            if not self._context.ok():
                return  # publishing fails while the process shuts down
            text = f'{type(err).__name__}: {err}'
            if not isinstance(err, MarigoldError):
                text += f'\n{traceback.format_exc()}'
            for frame in pending.values():
                self._reporter.dropped(frame, 'engine_error', text)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    """Add the time of a block to its stage."""
    started_s = time.monotonic()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.monotonic() - started_s
