"""What the node says of its frames: counters, ~/status, /diagnostics and throttled warnings."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
import threading
import time
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.impl.rcutils_logger import RcutilsLogger
from rclpy.node import Node

from marigold_ros.ros.conversions import header_of
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.parameters import Settings

if TYPE_CHECKING:
    from marigold_ros.depth.adaptive import AdaptivePrediction
    from marigold_ros.depth.engine import DepthEngine
    from marigold_ros.metric.types import ScaleReport

LOG_PERIOD_S = 10.0
NO_SCALE = ('depth/image_rect and points need metres: set scale.source, e.g. to fixed with '
            'scale.min_depth_m and scale.max_depth_m')
# States of a scale in which metres are as good as they get.
GOOD_SCALES = frozenset({'none', 'assumed', 'tracking'})
# States that ask nothing of the user; that a range is assumed is warned of at configure.
HEALTHY_SCALES = GOOD_SCALES | {'waiting'}
# Drops and events that say nothing bad of the camera or the model; a bad scale is told apart.
HARMLESS = frozenset({
    'superseded', 'unsubscribed', 'disabled', 'inactive', 'late', 'no_scale', 'scale_waiting',
    *(f'scale_{state}' for state in GOOD_SCALES)})


class ThrottledLog:
    """Log at most every LOG_PERIOD_S per kind of event, and say how many were left out."""

    def __init__(self, logger: RcutilsLogger) -> None:
        """Start with nothing said."""
        self._logger = logger
        self._last_s: dict[tuple[str, str], float] = {}
        self._unsaid: Counter[tuple[str, str]] = Counter()

    def log(self, camera: str, kind: str, text: str, *, healthy: bool = False) -> None:
        """Warn, or inform of what is healthy, unless the same of the same camera is fresh."""
        now, key = time.monotonic(), (camera, kind)
        if now - self._last_s.get(key, -LOG_PERIOD_S) < LOG_PERIOD_S:
            self._unsaid[key] += 1
            return
        self._last_s[key] = now
        again = f' ({self._unsaid.pop(key)} more since then)' if key in self._unsaid else ''
        line = f'{camera}: {kind}: {text}{again}'
        if healthy:
            self._logger.info(line)
        else:
            self._logger.warning(line)


class Reporter:
    """
    Count every frame's fate, and publish it; called from the executor and from the worker.

    Parameters
    ----------
    node : Node
        Whose logger, clock and publishers are used.
    """

    def __init__(self, node: Node) -> None:
        """Open both publishers; they live as long as the node, to tell of failures too."""
        self._node = node
        self._log = ThrottledLog(node.get_logger())
        self._lock = threading.Lock()
        self._counters: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._seen_by_diagnostics: dict[str, Counter[str]] = {}
        self._last_words: defaultdict[str, dict[str, str]] = defaultdict(dict)
        self._scales: dict[str, ScaleReport] = {}
        self._last_error = ''
        self._status = node.create_publisher(DiagnosticArray, '~/status', 10)
        self._diagnostics = node.create_publisher(DiagnosticArray, '/diagnostics', 10)

    def watch(self, cameras: Iterable[str]) -> None:
        """Report these cameras from now on, also while nothing comes from them."""
        with self._lock:
            self._counters = defaultdict(Counter, {
                camera: self._counters.get(camera, Counter(frames_in=0, frames_processed=0))
                for camera in cameras})
            self._scales.clear()

    def received(self, camera: str) -> None:
        """Count a frame that came in."""
        self._count(camera, 'frames_in')

    def processed(self, frame: ReceivedFrame, values: Mapping[str, object]) -> None:
        """Count a published frame and publish its status."""
        self._count(frame.camera, 'frames_processed')
        self._publish_status(frame, 'processed', '', values)

    def dropped(self, frame: ReceivedFrame, reason: str, detail: str = '') -> None:
        """Count a frame that is not published, say why in its status, and in the log if asked."""
        self._count(frame.camera, f'dropped_{reason}')
        if detail:
            self._log_detail(frame.camera, reason, detail, healthy=False)
            self._last_error = f'{frame.camera}: {reason}: {detail}'
        self._publish_status(frame, 'dropped', reason, {'detail': detail} if detail else {})

    def event(self, camera: str, name: str, detail: str = '', count: int = 1, *,
              healthy: bool = False) -> None:
        """Count an event that is not tied to a frame, and log it if there is a detail."""
        self._count(camera, name, count)
        if detail:
            self._log_detail(camera, name, detail, healthy)

    def scale(self, camera: str, report: ScaleReport) -> None:
        """Remember the scale of a camera's newest frame; count and log what changes or is bad."""
        with self._lock:
            before = self._scales.get(camera)
            self._scales[camera] = report
        if (before is None or before.state != report.state) and report.state != 'none':
            metric = report.metric
            self.event(camera, f'scale_{report.state}', 'no metres' if metric is None else
                       f'depth is {metric.scale:.3g} m x relative + {metric.shift:.3g} m',
                       healthy=report.state in HEALTHY_SCALES)
        if report.detail:
            self.event(camera, 'scale_refusals', report.detail)

    def error(self, text: str) -> None:
        """Log an error of the node itself and remember it for /diagnostics."""
        self._last_error = text
        self._node.get_logger().error(text)

    def publish_diagnostics(self, level: bytes, message: str,
                            values: Mapping[str, object]) -> None:
        """
        Publish /diagnostics: one status for the node, one per camera with its counters.

        Parameters
        ----------
        level : bytes
            Of the node's status, a DiagnosticStatus constant.
        message : str
        values : mapping
            Of the node's status; the last error is added.
        """
        with self._lock:
            counters = {camera: counter.copy() for camera, counter in self._counters.items()}
            last_words = {camera: dict(words) for camera, words in self._last_words.items()}
            scales = dict(self._scales)
        array = DiagnosticArray()
        array.header.stamp = self._node.get_clock().now().to_msg()
        name = self._node.get_fully_qualified_name().lstrip('/')
        array.status.append(_status(level, name, message,
                                    {**values, 'last_error': self._last_error}))
        for camera, counter in counters.items():
            news = counter - self._seen_by_diagnostics.get(camera, Counter())
            words = last_words.get(camera, {})
            camera_level, camera_message = _judge(news, words, scales.get(camera))
            array.status.append(_status(camera_level, f'{name}: {camera}', camera_message,
                                        {'camera': camera, **counter, **words,
                                         **scale_values(scales.get(camera))}))
        self._seen_by_diagnostics = counters
        self._diagnostics.publish(array)

    def _log_detail(self, camera: str, kind: str, text: str, healthy: bool) -> None:
        with self._lock:
            self._last_words[camera][f'last_{kind}'] = text
            self._log.log(camera, kind, text, healthy=healthy)

    def _count(self, camera: str, name: str, count: int = 1) -> None:
        with self._lock:
            self._counters[camera][name] += count

    def _publish_status(self, frame: ReceivedFrame, outcome: str, reason: str,
                        values: Mapping[str, object]) -> None:
        if self._status.get_subscription_count() == 0:
            return
        age_ms = f'{1e3 * (time.monotonic() - frame.received_s):.1f}'
        array = DiagnosticArray(header=header_of(frame.stamp_ns, frame.frame_id))
        array.status.append(_status(
            DiagnosticStatus.OK if outcome == 'processed' else DiagnosticStatus.WARN,
            f'{self._node.get_name()}: {frame.camera}', reason or outcome,
            {'camera': frame.camera, 'outcome': outcome, 'reason': reason, 'age_ms': age_ms,
             **values}))
        self._status.publish(array)


def _judge(news: Counter[str], words: Mapping[str, str], scale: ScaleReport | None
           ) -> tuple[bytes, str]:
    """Sum up what happened to a camera since the last /diagnostics."""
    drops = {name.removeprefix('dropped_'): n for name, n in news.items()
             if name.startswith('dropped_')}
    bad = {reason: n for reason, n in drops.items() if reason not in HARMLESS}
    complaints = [name for name in news if f'last_{name}' in words and name not in HARMLESS]
    if not news['frames_in']:
        return DiagnosticStatus.STALE, ': '.join(['no frames arrive', *complaints[:1]])
    if bad:
        return DiagnosticStatus.WARN, f'dropping frames: {max(bad, key=lambda name: bad[name])}'
    if scale is not None and scale.state not in GOOD_SCALES:
        return DiagnosticStatus.WARN, why_no_metres(scale) if scale.metric is None else (
            f'scale is {scale.state}{": " if scale.detail else ""}{scale.detail}')
    if complaints:
        return (DiagnosticStatus.WARN,
                f'{news["frames_processed"]} frames processed; {complaints[0]}')
    if news['frames_processed']:
        return DiagnosticStatus.OK, f'{news["frames_processed"]} frames processed'
    return DiagnosticStatus.OK, 'frames arrive, none was processed'


def _status(level: bytes, name: str, message: str,
            values: Mapping[str, object]) -> DiagnosticStatus:
    return DiagnosticStatus(level=level, name=name, message=message, hardware_id='', values=[
        KeyValue(key=key, value=str(value)) for key, value in values.items()])


def describe_scale_source(settings: Settings) -> str:
    """Say where metres come from, and that an assumption is one."""
    if settings.scale_source == 'none':
        return f'none: {NO_SCALE}'
    if settings.scale_source != 'fixed':
        return f'{settings.scale_source}: measured; metric topics are silent while it is unknown'
    return (f'{settings.scale_source}: ASSUMED, not measured: relative depth is spread over '
            f'{settings.scale_min_depth_m:g} to {settings.scale_max_depth_m:g} m')


def why_no_metres(report: ScaleReport) -> str:
    """Say why there are none."""
    if report.state == 'none':
        return NO_SCALE
    return f'no metres: the scale is {report.state}{": " if report.detail else ""}{report.detail}'


def scale_values(report: ScaleReport | None) -> dict[str, str]:
    """Describe a scale for ~/status and /diagnostics; empty where nothing is known."""
    metric = None if report is None else report.metric
    fit = None if report is None else report.fit
    age_s = None if report is None else report.age_s
    assumed = ' (assumed)' if metric is not None and metric.assumed else ''
    return {
        'scale_state': 'none' if report is None else report.state,
        'scale_source': 'none' if metric is None else metric.source + assumed,
        'scale': '' if metric is None else f'{metric.scale:.6g}',
        'shift': '' if metric is None else f'{metric.shift:.6g}',
        'scale_confidence': '' if metric is None else f'{metric.confidence:.3f}',
        'scale_residual': '' if fit is None else f'{fit.residual:.4f}',
        'scale_inliers': '' if fit is None else f'{fit.inliers:.3f}',
        'scale_anchors': '' if fit is None else str(fit.count),
        'scale_age_s': '' if age_s is None else f'{age_s:.3f}',
        'scale_detail': '' if report is None else report.detail}


def node_status(problem: str, enabled: bool, configured: tuple[Settings, DepthEngine] | None
                ) -> tuple[bytes, str, dict[str, object]]:
    """
    Describe the node for /diagnostics.

    Parameters
    ----------
    problem : str
        What keeps it from working; empty while it is active.
    enabled : bool
    configured : (Settings, DepthEngine) or None
        None while it is not.

    Returns
    -------
    level : bytes
    message : str
    values : dict
    """
    values: dict[str, object] = {'enabled': enabled}
    if configured is not None:
        settings, engine = configured
        values.update({
            'checkpoint': settings.checkpoint, 'device': engine.device, 'dtype': engine.dtype,
            'step_policy': settings.step_policy,
            'steps': f'{settings.min_inference_steps} to {settings.max_inference_steps}',
            'max_useful_steps': engine.checkpoint_info.max_useful_steps,
            'latency_cap_ms': settings.latency_cap_ms, 'scale': describe_scale_source(settings)})
    if problem:
        return DiagnosticStatus.ERROR, problem, values
    if not enabled:
        return DiagnosticStatus.WARN, 'disabled by ~/enable', values
    if configured is not None and configured[0].scale_source == 'none':
        return DiagnosticStatus.WARN, f'no metres: {NO_SCALE}', values
    return DiagnosticStatus.OK, 'active', values


def processed_values(prediction: AdaptivePrediction, scale: ScaleReport, *, age_s: float,
                     stamp_age_s: float, latency_s: float,
                     seconds: Mapping[str, float]) -> dict[str, str]:
    """
    Describe a processed frame for ~/status.

    Ages are those when work on it started: `age_s` counts from its receipt, as the latency does,
    on the steady clock; `stamp_age_s` from its stamp, on the node's clock.  `seconds` are those of
    the node's own stages; the engine's are the prediction's.
    """
    choice, timing = prediction.choice, prediction.timing
    stages = {
        'age': age_s, 'stamp_age': stamp_age_s, 'latency': latency_s, **seconds,
        'complexity': choice.complexity_s, 'preprocess': timing.preprocess_s,
        'encode': timing.encode_s, 'denoise': timing.denoise_s, 'decode_depth': timing.decode_s,
        'postprocess': timing.postprocess_s}
    return {
        'complexity': f'{choice.complexity:.6g}',
        'num_inference_steps': str(prediction.num_inference_steps),
        'step_reason': choice.reason,
        **{f'{stage}_ms': f'{1e3 * value:.2f}' for stage, value in stages.items()},
        **scale_values(scale)}
