"""The lifecycle node: parameters, transitions, services, and the objects that do the work."""

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
from marigold_ros.memory import return_freed_memory
from marigold_ros.ros import parameters
from marigold_ros.ros.calibration import CalibrationCache
from marigold_ros.ros.camera_input import CameraInput
from marigold_ros.ros.camera_output import CameraOutputs
from marigold_ros.ros.diagnostics import compute_node_status, describe_scale_sources, Reporter
from marigold_ros.ros.frame_buffer import ReceivedFrame
from marigold_ros.ros.image_sizes import AnnouncedImageSizes
from marigold_ros.ros.metric_inputs import MetricInputs
from marigold_ros.ros.rclpy_workarounds import (
    discard_destroyed_entities,
    find_given_parameters,
    reject_invalid_transitions,
)
from marigold_ros.ros.subscriptions import InputTopics
from marigold_ros.ros.worker import CameraResources, DepthWorker

DIAGNOSTICS_PERIOD_S = 1.0
# Period of matching topics and QoS to publishers that have appeared or changed.
QOS_MATCH_PERIOD_S = 0.5
# How long cleanup and shutdown wait for a run of the networks, while no service is answered.
CLEANUP_TIMEOUT_S = 10.0

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class DepthNode(LifecycleNode):
    """
    Publish depth from the newest frame of every camera.

    Configure loads the engine and creates the publishers; activate subscribes.  After a failed
    configure the node stays unconfigured and running, so that the user can correct the parameter
    and configure it again.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Declare the parameters, and create services and timers; arguments as rclpy's Node."""
        super().__init__('depth_node', **kwargs)
        # What destroy_node needs comes first: where the rest fails, Kilted's context calls it.
        # From configure to cleanup.
        self._cameras: dict[str, CameraResources] = {}
        self._worker: DepthWorker | None = None
        self._has_ended = True  # every worker before, also one whose networks hung
        # From activate to deactivate.
        self._inputs: list[CameraInput] = []
        self._jump_handle = self.get_clock().create_jump_callback(
            JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1)),
            post_callback=self._on_time_jump)
        parameters.declare_parameters(self)
        self._warn_of_unknown_parameters()
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        self._reporter = Reporter(self)
        self._enabled = True
        self._problem = 'not configured'  # why the node is not active; empty while it is
        self.create_service(SetBool, '~/enable', self._handle_enable)
        self.create_service(Trigger, '~/reset_scale', self._handle_reset_scale)
        # Timers use the steady clock, because simulated time may be paused.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(DIAGNOSTICS_PERIOD_S, self._publish_diagnostics, clock=steady)
        self.create_timer(QOS_MATCH_PERIOD_S, self._match_publishers, clock=steady)
        reject_invalid_transitions(self)

    # Lifecycle

    def run(self) -> None:
        """
        Start the node if `autostart` is set, and spin until the context is shut down.

        Raises
        ------
        ExternalShutdownException, RCLError
            When the context is shut down.
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
        """Load and warm up the engine, and create the publishers."""
        try:
            self._configure()
            self._problem = 'not active'
            return super().on_configure(state)
        except Exception as err:  # rclpy would discard it without a message
            if not self.context.ok():
                raise  # the process is shutting down; configure itself did not fail
            detail = '' if isinstance(err, MarigoldError) else f'\n{traceback.format_exc()}'
            self._problem = f'configure failed: {err}'
            name = self.get_fully_qualified_name()
            self._reporter.log_error(
                f'{self._problem}\nThe node stays unconfigured. Correct the parameter with '
                f'`ros2 param set {name} <parameter> <value>`, then run '
                f'`ros2 lifecycle set {name} configure` and '
                f'`ros2 lifecycle set {name} activate`.{detail}')
        # Only now, because the exception's traceback referred to what had been loaded.
        self.release()
        return FAILURE

    def _configure(self) -> None:
        settings = self._settings()
        for camera in settings.cameras:
            rectified = (InputTopics(self, camera).looks_rectified
                         if settings.input_rectified is None else settings.input_rectified)
            self._cameras[camera] = CameraResources(CalibrationCache(rectified),
                                                    CameraOutputs(self, camera, self._reporter))
        self._reporter.set_cameras(settings.cameras)
        metric_inputs = MetricInputs(
            self, settings.scale_config(), settings.cameras,
            rectified=bool(settings.input_rectified), max_input_pixels=settings.max_input_pixels,
            reporter=self._reporter)
        self._worker = DepthWorker(self, settings, self._cameras, metric_inputs, self._reporter)
        image_sizes = AnnouncedImageSizes(self, settings.cameras)
        try:
            self._worker.load(image_sizes.read)
        finally:
            image_sizes.close()
        engine = self._worker.adaptive.engine
        info = engine.checkpoint_info
        self.get_logger().info(
            f'loaded checkpoint {info.name} on {engine.device} ({engine.executor_name}): '
            f'{info.scheduler}, {info.prediction_type}, at most {info.max_useful_steps} useful '
            'denoising steps')
        self._log_scale_sources(settings)

    def _configured_worker(self) -> DepthWorker:
        """Return the worker, or raise if the node is not configured."""
        if self._worker is None:
            raise RuntimeError('the node is not configured')
        return self._worker

    def _settings(self) -> parameters.Settings:
        return parameters.settings_from_parameters(parameters.read_current_values(self))

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe to the cameras and to the references of the scale sources."""
        try:
            settings = self._settings()
            self._configured_worker().metric_inputs.open(settings.scale_config(),
                                                         settings.odom_frame)
            for name, camera in self._cameras.items():
                self._inputs.append(CameraInput(
                    self, name, settings.input_transport, camera.calibrations, self._on_frame,
                    self._reporter))
        except MarigoldError as err:
            self._unsubscribe()
            self._problem = f'activate failed: {err}'
            self._reporter.log_error(self._problem)
            return FAILURE
        self._problem = ''
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe, and wait until the current frame is published."""
        self._unsubscribe()
        self._configured_worker().drop_waiting('inactive').result()
        self._problem = 'not active'
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unload the engine and destroy the publishers; fail while the networks hang."""
        if self._networks_hang('cleanup failed', 'try again, or end the process'):
            return FAILURE
        self.release()
        self._problem = 'not configured'
        return SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything, from any state; fail while the networks hang."""
        self._unsubscribe()
        if self._worker is not None:
            self._worker.drop_waiting('inactive').result()  # so that no further run begins
        self._problem = 'shut down'
        if self._networks_hang('shutdown released nothing', 'end the process'):
            return FAILURE  # the end of the process releases what is left
        self.release()
        return SUCCESS

    def _networks_hang(self, problem: str, remedy: str) -> bool:
        """Wait for the end of a run; log a problem if it does not come."""
        worker = self._worker
        if worker is None or worker.wait_for_networks(CLEANUP_TIMEOUT_S):
            return False
        self._reporter.log_error(f'{problem}: the networks have been running for '
                                 f'{worker.adaptive.run_s:.0f} s; {remedy}')
        return True

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything and become unconfigured, unless the process is shutting down."""
        if self.context.ok():
            self.release(CLEANUP_TIMEOUT_S)
        return SUCCESS

    def _unsubscribe(self) -> None:
        for each in self._inputs:
            each.close()
        self._inputs = []
        if self._worker is not None:
            self._worker.metric_inputs.close()

    def release(self, timeout_s: float | None = None) -> bool:
        """
        Undo configure and activate, also if they were not completed; further calls do nothing.

        Parameters
        ----------
        timeout_s : float or None
            How long to wait for the end of a load or an inference; None waits without limit.

        Returns
        -------
        bool
            Whether this worker, and every one before, has ended.
        """
        self._unsubscribe()
        if self._worker is not None:
            self._has_ended &= self._worker.close(timeout_s)
        self._worker = None
        for camera in self._cameras.values():
            camera.outputs.close()
        self._cameras = {}
        gc.collect()  # the networks are part of reference cycles
        discard_destroyed_entities(self)
        return_freed_memory()
        return self._has_ended

    def destroy_node(self) -> None:
        """Release everything and destroy the node."""
        self.release()
        self._jump_handle.unregister()
        super().destroy_node()

    # Frames

    def _on_frame(self, frame: ReceivedFrame) -> None:
        self._reporter.count_received(frame.camera)
        if self._enabled:
            self._configured_worker().submit(frame)
        else:
            self._reporter.report_dropped(frame, 'disabled')

    def _match_publishers(self) -> None:
        for each in self._inputs:
            each.match_publishers()
        if self._worker is not None:
            self._worker.metric_inputs.match_publishers()

    def _on_time_jump(self, jump: TimeJump) -> None:
        self.get_logger().warning('the ROS time jumped back or changed its source: the state from '
                                  'earlier frames is reset')
        for camera in self._cameras.values():
            camera.calibrations.discard_older()
        if self._worker is not None:
            self._worker.reset()

    # Parameters

    def _warn_of_unknown_parameters(self) -> None:
        unknown = parameters.describe_unknown_parameters(
            find_given_parameters(self), self.get_parameters_by_prefix(''))
        if unknown:
            self.get_logger().warning(f'ignored, because {self.get_name()} has no such parameter: '
                                      + unknown)

    def _check_parameters(self, changes: list[Parameter]) -> SetParametersResult:
        reason = parameters.find_rejection_reason(
            parameters.read_current_values(self), [(each.name, each.value) for each in changes],
            configured=self._worker is not None)
        return SetParametersResult(successful=not reason, reason=reason)

    def _apply_parameters(self, changes: list[Parameter]) -> None:
        names = {row.name for row in parameters.TABLE if row.run_time}
        if self._worker is None or not any(each.name in names for each in changes):
            return
        settings = self._settings()
        self._worker.apply_settings(settings)
        if any(each.name.startswith('scale.') for each in changes):
            self._log_scale_sources(settings)
        if self._inputs and any(each.name.startswith(('scale.', 'odom_frame'))
                                for each in changes):
            self._open_metric_inputs(settings)

    def _open_metric_inputs(self, settings: parameters.Settings) -> None:
        """Subscribe to what is needed after a change of parameters while active."""
        try:
            self._configured_worker().metric_inputs.open(settings.scale_config(),
                                                         settings.odom_frame)
            discard_destroyed_entities(self)
        except MarigoldError as err:
            self._reporter.log_error(
                f'cannot subscribe for scale.sources {list(settings.scale_sources)}: {err}')

    # Services and diagnostics

    def _handle_enable(self, request: SetBool.Request,
                       response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        if self._worker is not None and not self._enabled:
            self._worker.drop_waiting('disabled')
        response.success = True
        response.message = ('enabled: frames are processed' if request.data
                            else 'disabled: frames are dropped')
        return response

    def _handle_reset_scale(self, request: Trigger.Request,
                            response: Trigger.Response) -> Trigger.Response:
        response.success = self._worker is not None
        response.message = 'the node is not configured'
        if self._worker is not None:
            self._worker.reset_scale()
            response.message = 'the scale is reset'
        return response

    def _log_scale_sources(self, settings: parameters.Settings) -> None:
        text = f'scale.sources {describe_scale_sources(settings)}'
        if settings.scale_config().is_measured:
            self.get_logger().info(text)
        else:
            self.get_logger().warning(text)

    def _publish_diagnostics(self) -> None:
        configured = None
        if self._worker is not None:
            configured = self._settings(), self._worker.adaptive
        self._reporter.publish_diagnostics(
            *compute_node_status(self._problem, self._enabled, configured))
