"""Reports on the node and its frames: counters, ~/status, /diagnostics and throttled logs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
import math
import threading
import time
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node

from marigold_ros.ros.conversions import make_header
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.parameters import Settings

if TYPE_CHECKING:
    from marigold_ros.depth.adaptive import AdaptiveDepth, AdaptivePrediction
    from marigold_ros.metric.types import ScaleReport, SourceReport

LOG_PERIOD_S = 10.0
# A run that takes longer is reported while it lasts.
LONG_RUN_S = 5.0
NO_SCALE = ('depth/image_rect and points need a metric scale: set the parameter scale.sources, '
            'for example to [fixed] with scale.min_depth_m and scale.max_depth_m')
NO_SIGMA = 'depth/sigma needs a measured scale; that of the source fixed is assumed'
# States in which the scale needs no action of the user.
OK_SCALE_STATES = frozenset({'none', 'assumed', 'tracking'})
# States that are logged at INFO; an assumed range has its own warning at configure.
INFO_SCALE_STATES = OK_SCALE_STATES | {'waiting'}
# Drop reasons and events that are no fault of the camera, the model or the scale.
NORMAL_EVENTS = frozenset({
    'superseded', 'unsubscribed', 'disabled', 'inactive', 'late', 'no_scale', 'no_sigma',
    'scale_waiting', 'ignored_transforms', 'assumed_axes',
    *(f'scale_{state}' for state in OK_SCALE_STATES)})


class ThrottledLog:
    """Log at most every LOG_PERIOD_S per camera and event, with the number of omitted ones."""

    def __init__(self, logger: RcutilsLogger) -> None:
        """Start without events."""
        self._logger = logger
        self._last_s: dict[tuple[str, str], float] = {}
        self._omitted: Counter[tuple[str, str]] = Counter()

    def log(self, camera: str, name: str, text: str, *, warn: bool = True) -> None:
        """Log an event as a warning or information, unless the last one is too recent."""
        now, key = time.monotonic(), (camera, name)
        if now - self._last_s.get(key, -LOG_PERIOD_S) < LOG_PERIOD_S:
            self._omitted[key] += 1
            return
        self._last_s[key] = now
        omitted = (f' ({self._omitted.pop(key)} more since the last message)'
                   if key in self._omitted else '')
        self.log_always(camera, name, text + omitted, warn=warn)

    def log_always(self, camera: str, name: str, text: str, *, warn: bool = True) -> None:
        """Log an event as a warning or information."""
        line = f'{camera}: {name}: {text}'
        if warn:
            self._logger.warning(line)
        else:
            self._logger.info(line)


class Reporter:
    """
    Count and publish the outcome of every frame; called from the executor and from the worker.

    Parameters
    ----------
    node : Node
        Supplies logger, clock and publishers.
    """

    def __init__(self, node: Node) -> None:
        """Create both publishers; they exist as long as the node, to report failures, too."""
        self._node = node
        self._log = ThrottledLog(node.get_logger())
        self._lock = threading.Lock()
        self._counters: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._published_counters: dict[str, Counter[str]] = {}
        self._last_details: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._reported_once: set[tuple[str, str, str]] = set()  # camera, event, subject
        self._scales: dict[str, ScaleReport] = {}
        self._last_error = ''
        self._status = node.create_publisher(DiagnosticArray, '~/status', 10)
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', 10)

    def set_cameras(self, cameras: Iterable[str]) -> None:
        """Set the cameras in /diagnostics, which are reported even if they send no frames."""
        with self._lock:
            self._counters = defaultdict(Counter, {
                camera: self._counters.get(camera, Counter(frames_in=0, frames_processed=0))
                for camera in cameras})
            self._scales.clear()

    def count_received(self, camera: str) -> None:
        """Count a received frame."""
        self._count(camera, 'frames_in')

    def report_processed(self, frame: ReceivedFrame, values: Mapping[str, object]) -> None:
        """Count a published frame and publish its status."""
        self._count(frame.camera, 'frames_processed')
        self._publish_status(frame, 'processed', '', values)

    def report_dropped(self, frame: ReceivedFrame, reason: str, detail: str = '') -> None:
        """Count a dropped frame and publish its status; log it if there is a detail."""
        self._count(frame.camera, f'dropped_{reason}')
        if detail:
            self._log_detail(frame.camera, reason, detail)
            self._last_error = f'{frame.camera}: {reason}: {detail}'
        self._publish_status(frame, 'dropped', reason, {'detail': detail} if detail else {})

    def report_event(self, camera: str, name: str, detail: str = '', count: int = 1, *,
                     warn: bool = True) -> None:
        """Count an event that is not tied to a frame; log it if there is a detail."""
        self._count(camera, name, count)
        if detail:
            self._log_detail(camera, name, detail, warn=warn)

    def report_once(self, camera: str, name: str, subject: str, detail: str, *,
                    warn: bool = True) -> None:
        """Count an event; log it the first time that it concerns this subject."""
        self._count(camera, name)
        with self._lock:
            if (camera, name, subject) not in self._reported_once:
                self._reported_once.add((camera, name, subject))
                self._last_details[camera][f'last_{name}'] = detail
                self._log.log_always(camera, name, detail, warn=warn)

    def report_scale(self, camera: str, report: ScaleReport) -> None:
        """Store the scale of a camera's newest frame; count and log new states and rejections."""
        with self._lock:
            before = self._scales.get(camera)
            self._scales[camera] = report
        if (before is None or before.state != report.state) and report.state != 'none':
            scale = report.metric_scale
            self.report_event(
                camera, f'scale_{report.state}', 'the scale is unknown' if scale is None else
                f'metric depth = {scale.scale:.3g} m * relative depth + {scale.shift:.3g} m',
                warn=report.state not in INFO_SCALE_STATES)
        if report.detail:
            self.report_event(camera, 'scale_rejections', report.detail)

    def log_error(self, text: str) -> None:
        """Log an error of the node itself and store it for /diagnostics."""
        self._last_error = text
        self._node.get_logger().error(text)

    def publish_diagnostics(self, level: bytes, message: str,
                            values: Mapping[str, object]) -> None:
        """
        Publish /diagnostics: one status for the node and one per camera with its counters.

        Parameters
        ----------
        level : bytes
            Level of the node's status, a DiagnosticStatus constant.
        message : str
            Message of the node's status.
        values : mapping
            Values of the node's status; the last error is added.
        """
        with self._lock:
            counters = {camera: counter.copy() for camera, counter in self._counters.items()}
            last_details = {camera: dict(each) for camera, each in self._last_details.items()}
            scales = dict(self._scales)
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        name = self._node.get_fully_qualified_name().lstrip('/')
        array.status.append(_status(level, name, message,
                                    {**values, 'last_error': self._last_error}))
        for camera, counter in counters.items():
            recent = counter - self._published_counters.get(camera, Counter())
            details = last_details.get(camera, {})
            camera_level, camera_message = _camera_status(recent, details, scales.get(camera))
            array.status.append(_status(camera_level, f'{name}: {camera}', camera_message,
                                        {'camera': camera, **counter, **details,
                                         **format_scale(scales.get(camera))}))
        self._published_counters = counters
        self._diagnostics.publish(array)

    def _log_detail(self, camera: str, name: str, text: str, *, warn: bool = True) -> None:
        with self._lock:
            self._last_details[camera][f'last_{name}'] = text
            self._log.log(camera, name, text, warn=warn)

    def _count(self, camera: str, name: str, count: int = 1) -> None:
        with self._lock:
            self._counters[camera][name] += count

    def _publish_status(self, frame: ReceivedFrame, outcome: str, reason: str,
                        values: Mapping[str, object]) -> None:
        if self._status.get_subscription_count() == 0:
            return
        age_ms = f'{1e3 * (time.monotonic() - frame.received_s):.1f}'
        array = DiagnosticArray(header=make_header(frame.stamp_ns, frame.frame_id))
        array.status.append(_status(
            DiagnosticStatus.OK if outcome == 'processed' else DiagnosticStatus.WARN,
            f'{self._node.get_name()}: {frame.camera}', reason or outcome,
            {'camera': frame.camera, 'outcome': outcome, 'reason': reason, 'age_ms': age_ms,
             **values}))
        self._status.publish(array)


def _camera_status(recent: Counter[str], details: Mapping[str, str], scale: ScaleReport | None
                   ) -> tuple[bytes, str]:
    """Compute level and message of a camera from its counters since the last /diagnostics."""
    drops = {name.removeprefix('dropped_'): n for name, n in recent.items()
             if name.startswith('dropped_')}
    faults = {reason: n for reason, n in drops.items() if reason not in NORMAL_EVENTS}
    warnings = [name for name in recent if f'last_{name}' in details and name not in NORMAL_EVENTS]
    if not recent['frames_in']:
        return DiagnosticStatus.STALE, ': '.join(['no frames received', *warnings[:1]])
    if faults:
        most_frequent = max(faults, key=lambda reason: faults[reason])
        return DiagnosticStatus.WARN, f'frames dropped: {most_frequent}'
    if scale is not None and scale.state not in OK_SCALE_STATES:
        return DiagnosticStatus.WARN, (
            explain_missing_scale(scale) if scale.metric_scale is None else
            f'scale is {scale.state}{": " if scale.detail else ""}{scale.detail}')
    if warnings:
        return (DiagnosticStatus.WARN,
                f'{recent["frames_processed"]} frames processed; {warnings[0]}')
    if recent['frames_processed']:
        return DiagnosticStatus.OK, f'{recent["frames_processed"]} frames processed'
    return DiagnosticStatus.OK, 'frames received, but none processed'


def _status(level: bytes, name: str, message: str,
            values: Mapping[str, object]) -> DiagnosticStatus:
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id='', values=[
        KeyValue(key=key, value=str(value)) for key, value in values.items()])


def describe_scale_sources(settings: Settings) -> str:
    """Describe the sources of the metric scale, and whether it is measured or assumed."""
    if settings.scale_sources == ('none',):
        return f'none: {NO_SCALE}'
    if settings.scale_sources != ('fixed',):
        return (f'{", ".join(settings.scale_sources)}: the scale is measured; metric topics are '
                'published only while it is known')
    return ('fixed: the scale is ASSUMED, not measured: relative depth 0 to 1 is published as '
            f'{settings.scale_min_depth_m:g} to {settings.scale_max_depth_m:g} m')


def explain_missing_scale(report: ScaleReport) -> str:
    """Explain why the scale of a frame is unknown."""
    if report.state == 'none':
        return NO_SCALE
    return (f'no metric depth: the scale is {report.state}{": " if report.detail else ""}'
            f'{report.detail}')


def explain_stale_depth(carried_s: float, run_s: float) -> str:
    """Explain why a frame has no metric outputs, whether or not its scale is known."""
    running = f'; the networks have been running for {run_s:.1f} s' if run_s else ''
    return f'depth is stale, so not metric: it has been carried for {carried_s:.1f} s{running}'


def format_scale(report: ScaleReport | None) -> dict[str, str]:
    """Format a scale for ~/status and /diagnostics; unknown values are empty."""
    scale = None if report is None else report.metric_scale
    fit = None if report is None else report.fit
    age_s = None if report is None else report.age_s
    tilt = None if report is None else report.tilt
    tilt_age_s = None if tilt is None else tilt.age_s
    assumed = ' (assumed)' if scale is not None and scale.assumed else ''
    return {
        'scale_state': 'none' if report is None else report.state,
        'scale_sources': 'none' if scale is None else ', '.join(scale.sources) + assumed,
        'scale': '' if scale is None else f'{scale.scale:.6g}',
        'shift': '' if scale is None else f'{scale.shift:.6g}',
        'scale_confidence': '' if scale is None else f'{scale.confidence:.3f}',
        'scale_residual': '' if fit is None else f'{fit.residual:.4f}',
        'scale_inliers': '' if fit is None else f'{fit.inlier_fraction:.3f}',
        'scale_anchors': '' if fit is None else str(fit.anchor_count),
        'scale_age_s': '' if age_s is None else f'{age_s:.3f}',
        'scale_tilt_origin': '' if tilt is None else tilt.origin,
        'scale_tilt_age_s': '' if tilt_age_s is None else f'{tilt_age_s:.3f}',
        'scale_pitch_deg': '' if tilt is None else _degrees(tilt.pitch),
        'scale_roll_deg': '' if tilt is None else _degrees(tilt.roll),
        'scale_detail': '' if report is None else report.detail,
        **_format_sources({} if report is None else report.sources)}


def _format_sources(sources: Mapping[str, SourceReport]) -> dict[str, str]:
    """Format the state of each scale source."""
    values: dict[str, str] = {}
    for name, each in sources.items():
        values |= {f'scale_{name}_state': each.state,
                   f'scale_{name}_anchors': str(each.anchor_count),
                   f'scale_{name}_age_s': '' if each.age_s is None else f'{each.age_s:.3f}',
                   f'scale_{name}_detail': each.detail}
    return values


def _degrees(angle: float) -> str:
    return f'{round(math.degrees(angle), 2) + 0.0:.2f}'  # -0.0 + 0.0 is 0.0


def compute_node_status(problem: str, enabled: bool,
                        configured: tuple[Settings, AdaptiveDepth] | None
                        ) -> tuple[bytes, str, dict[str, object]]:
    """
    Compute the status of the node for /diagnostics.

    Parameters
    ----------
    problem : str
        Why the node is not active; empty while it is.
    enabled : bool
        Whether ~/enable lets frames be processed.
    configured : (Settings, AdaptiveDepth) or None
        None while the node is not configured.

    Returns
    -------
    level : bytes
    message : str
    values : dict
    """
    values: dict[str, object] = {'enabled': enabled}
    if configured is not None:
        settings, adaptive = configured
        engine = adaptive.engine
        values.update({
            'checkpoint': settings.checkpoint, 'device': engine.device,
            'executor': engine.executor_name, 'dtype': engine.dtype,
            'step_policy': settings.step_policy,
            'steps': f'{settings.min_inference_steps} to {settings.max_inference_steps}',
            'max_useful_steps': engine.checkpoint_info.max_useful_steps,
            'latency_cap_ms': settings.latency_cap_ms, 'run_s': f'{adaptive.run_s:.3f}',
            'scale': describe_scale_sources(settings)})
    if problem:
        return DiagnosticStatus.ERROR, problem, values
    if not enabled:
        return DiagnosticStatus.WARN, 'disabled by ~/enable', values
    if configured is not None and configured[1].run_s > LONG_RUN_S:
        return DiagnosticStatus.WARN, (f'the networks have been running for '
                                       f'{configured[1].run_s:.0f} s'), values
    if configured is not None and configured[0].scale_sources == ('none',):
        return DiagnosticStatus.WARN, f'no metric depth: {NO_SCALE}', values
    return DiagnosticStatus.OK, 'active', values


def format_processed_frame(prediction: AdaptivePrediction, scale: ScaleReport, *,
                           pose_origin: str, age_s: float, stamp_age_s: float, latency_s: float,
                           seconds: Mapping[str, float]) -> dict[str, str]:
    """
    Format a processed frame for ~/status.

    `pose_origin` is the fixed frame of the camera's pose, or why that is unknown.
    Processing starts `age_s` after the receipt on the steady clock, and `stamp_age_s` after the
    image's stamp on the node's clock; publication ends `latency_s` after the receipt.  `seconds`
    are the durations of the node's stages; `prediction` has those of the engine's.
    """
    decision, timing = prediction.decision, prediction.timing
    stages = {
        'age': age_s, 'stamp_age': stamp_age_s, 'latency': latency_s, **seconds,
        'complexity': decision.complexity_s, 'preprocess': timing.preprocess_s,
        'encode': timing.encode_s, 'denoise': timing.denoise_s, 'decode_depth': timing.decode_s,
        'postprocess': timing.postprocess_s}
    return {
        'complexity': f'{decision.complexity:.6g}',
        'num_inference_steps': str(prediction.num_inference_steps),
        'step_reason': decision.reason,
        'covered_share': f'{prediction.covered_share:.4f}',
        'carried_s': f'{decision.carried_s:.3f}',
        'depth_state': ('stale' if decision.stale
                        else 'run' if prediction.num_inference_steps else 'carried'),
        'pose': pose_origin,
        **{f'{stage}_ms': f'{1e3 * value:.2f}' for stage, value in stages.items()},
        **format_scale(scale)}
