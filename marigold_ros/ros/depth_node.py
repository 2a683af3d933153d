"""The lifecycle node: parameters, transitions, services and the wiring of what does the work."""

from __future__ import annotations

import gc
import traceback
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.clock import Clock, JumpThreshold, TimeJump
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger

from marigold_ros.depth.errors import MarigoldError
from marigold_ros.ros import parameters
from marigold_ros.ros.calibration import CalibrationCache
from marigold_ros.ros.camera_input import CameraInput
from marigold_ros.ros.camera_output import CameraOutputs
from marigold_ros.ros.diagnostics import describe_scale_source, node_status, Reporter
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.memory import return_freed_memory
from marigold_ros.ros.metric_inputs import MetricInputs
from marigold_ros.ros.rclpy_workarounds import forget_destroyed_entities, refuse_wrong_transitions
from marigold_ros.ros.subscriptions import InputTopics
from marigold_ros.ros.worker import CameraPort, DepthWorker

DIAGNOSTICS_PERIOD_S = 1.0
# How soon a camera that starts, or offers another QoS, is heard.
FOLLOW_PERIOD_S = 0.5

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class DepthNode(LifecycleNode):
    """
    Depth from the newest frame of every camera.

    Configure loads the engine and opens the publishers, activate subscribes.  A failed configure
    leaves the node unconfigured and alive: mend the parameter and configure again.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Declare the parameters and open what lives as long as the node; see rclpy's Node."""
        super().__init__('depth_node', **kwargs)
        parameters.declare(self)
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._reporter = Reporter(self)
        self._enabled = True
        self._problem = 'not configured'
        # From configure to cleanup; the inputs while active.
        self._cameras: dict[str, CameraPort] = {}
        self._worker: DepthWorker | None = None
        self._inputs: list[CameraInput] = []
        self.create_service(SetBool, '~/enable', self._enable)
        self.create_service(Trigger, '~/reset_scale', self._reset_scale)
        # On the steady clock: a simulated one may stand still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady)
        self.create_timer(FOLLOW_PERIOD_S, self._follow_publishers, clock=steady)
        refuse_wrong_transitions(self)
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1)),
            post_callback=self._time_jumped)

    # Lifecycle

    def run(self) -> None:
        """
        Start if `autostart` asks for it, and serve until the context is shut down.

        Raises
        ------
        ExternalShutdownException, RCLError
            When it is.
        """
        executor = SingleThreadedExecutor(context=self.context)
        executor.add_node(self)
        try:
            if self.get_parameter('autostart').value:
                self.start()
            executor.spin()
        finally:
            executor.shutdown()

    def start(self) -> None:
        """Configure and activate."""
        if self.trigger_configure() == SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load and warm up the engine, and open the publishers."""
        try:
            self._configure()
            self._problem = 'not active'
            return super().on_configure(state)
        except Exception as err:  # rclpy would swallow it without a word
            if not self.context.ok():
                raise  # every call fails once the process ends: that is no failed configure
            detail = '' if isinstance(err, MarigoldError) else f'\n{traceback.format_exc()}'
            self._problem = f'configure failed: {err}'
            self._reporter.error(
                f'{self._problem}\nThe node stays unconfigured: mend it with ros2 param set '
                f'{self.get_fully_qualified_name()} <parameter> <value>, then ros2 lifecycle set '
                f'{self.get_fully_qualified_name()} configure, and activate.{detail}')
        self.release()  # the exception is gone now, whose frames held what had been loaded
        return FAILURE

    def _configure(self) -> None:
        settings = self._settings()
        for camera in settings.cameras:
            rectified = (InputTopics(self, camera).looks_rectified
                         if settings.input_rectified is None else settings.input_rectified)
            self._cameras[camera] = CameraPort(CalibrationCache(rectified),
                                               CameraOutputs(self, camera, self._reporter))
        self._reporter.watch(settings.cameras)
        metric_inputs = MetricInputs(
            self, settings.scale_config(), settings.cameras,
            rectified=bool(settings.input_rectified), max_input_pixels=settings.max_input_pixels,
            reporter=self._reporter)
        self._worker = DepthWorker(self, settings, self._cameras, metric_inputs, self._reporter)
        self._worker.load()
        engine = self._worker.adaptive.engine
        info = engine.checkpoint_info
        self.get_logger().info(
            f'checkpoint {info.name} on {engine.device}: {info.scheduler}, '
            f'{info.prediction_type}, useful up to {info.max_useful_steps} steps')
        self._log_scale_source(settings)

    def _configured_worker(self) -> DepthWorker:
        """Give the worker of a node that must be configured."""
        if self._worker is None:
            raise RuntimeError('the node is not configured')
        return self._worker

    def _settings(self) -> parameters.Settings:
        return parameters.settings_from(parameters.current_values(self))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        try:
            settings = self._settings()
            self._configured_worker().metric_inputs.open(settings.scale_config())
            for name, camera in self._cameras.items():
                self._inputs.append(CameraInput(
                    self, name, settings.input_transport, camera.calibrations, self._receive,
                    self._reporter))
        except MarigoldError as err:
            self._unsubscribe()
            self._problem = f'activate failed: {err}'
            self._reporter.error(self._problem)
            return FAILURE
        self._problem = ''
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, and wait for the frame under way."""
        self._unsubscribe()
        self._configured_worker().drain()
        self._problem = 'not active'
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of the engine and the publishers."""
        self.release()
        self._problem = 'not configured'
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything, from whatever state."""
        self.release()
        self._problem = 'shut down'
        return SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Let go of everything and be unconfigured again, unless the process ends anyway."""
        if self.context.ok():
            self.release()
        return SUCCESS

    def _unsubscribe(self) -> None:
        for each in self._inputs:
            each.close()
        self._inputs = []
        if self._worker is not None:
            self._worker.metric_inputs.close()

    def release(self, patience_s: float | None = None) -> bool:
        """
        Undo configure and activate, however far they came; harmless the second time.

        Parameters
        ----------
        patience_s : float or None
            How long to wait for a denoising step or a load under way; None waits for its end.

        Returns
        -------
        bool
            Whether the worker has ended.
        """
        self._unsubscribe()
        ended = self._worker is None or self._worker.close(patience_s)
        self._worker = None
        for camera in self._cameras.values():
            camera.outputs.close()
        self._cameras = {}
        gc.collect()  # the networks hold reference cycles
        forget_destroyed_entities(self)
        return_freed_memory()
        return ended

    def destroy_node(self) -> None:
        """Let go of everything, then of the node."""
        self.release()
        self._jump_handle.unregister()
        super().destroy_node()

    # Frames

    def _receive(self, frame: ReceivedFrame) -> None:
        self._reporter.received(frame.camera)
        if self._enabled:
            self._configured_worker().put(frame)
        else:
            self._reporter.dropped(frame, 'disabled')

    def _follow_publishers(self) -> None:
        for each in self._inputs:
            each.follow()
        if self._worker is not None:
            self._worker.metric_inputs.follow()

    def _time_jumped(self, jump: TimeJump) -> None:
        self.get_logger().warning('time jumped back, or changed its source: starting afresh')
        for camera in self._cameras.values():
            camera.calibrations.forget_stamps()
        if self._worker is not None:
            self._worker.reset()

    # Parameters

    def _check_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        reason = parameters.refusal(
            parameters.current_values(self), [(each.name, each.value) for each in changes],
            configured=self._worker is not None)
        return SetParametersResult(successful=not reason, reason=reason)

    def _apply_parameters(self, changes: list[Parameter]) -> None:
        names = {row.name for row in parameters.TABLE if row.run_time}
        if self._worker is None or not any(each.name in names for each in changes):
            return
        settings = self._settings()
        self._worker.apply(settings)
        if any(each.name.startswith('scale.') for each in changes):
            self._log_scale_source(settings)
            if self._inputs:
                self._listen_to_references(settings)

    def _listen_to_references(self, settings: parameters.Settings) -> None:
        """Listen to what a scale source needs that was changed while active."""
        try:
            self._configured_worker().metric_inputs.open(settings.scale_config())
        except MarigoldError as err:
            self._reporter.error(f'scale: {err}')

    # Services and diagnostics

    def _enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success = True
        response.message = 'enabled' if request.data else 'disabled: frames are dropped'
        return response

    def _reset_scale(self, request: Trigger.Request,
                     response: Trigger.Response) -> Trigger.Response:
        response.success = self._worker is not None
        response.message = 'not configured'
        if self._worker is not None:
            self._worker.reset_scale()
            response.message = f'scale.source {self._settings().scale_source} starts afresh'
        return response

    def _log_scale_source(self, settings: parameters.Settings) -> None:
        text = f'scale.source {describe_scale_source(settings)}'
        if settings.scale_config().is_measured:
            self.get_logger().info(text)
        else:
            self.get_logger().warning(text)

    def _publish_diagnostics(self) -> None:
        configured = None
        if self._worker is not None:
            configured = self._settings(), self._worker.adaptive.engine
        self._reporter.publish_diagnostics(
            *node_status(self._problem, self._enabled, configured))
