"""Run depth_node in a process or thread, and use its topics and services like a robot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
import itertools
import math
import os
from pathlib import Path
import sys
import threading
import time
from zlib import crc32

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
import numpy as np
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.task import Future
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header, String
from std_srvs.srv import SetBool, Trigger

from marigold_ros.ros.depth_node import DepthNode
from marigold_ros.ros.tools.processes import (
    is_domain_in_use,
    LoggedProcess,
    make_domain_environment,
)
from marigold_ros.ros.tools.share_files import select_large_image_profile

os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
# As in the launch file: without it every fifth image of 640x480 overflows the shared memory, and
# the lost part is sent again only at the writer's next heartbeat, up to 3 s later.
os.environ.update(select_large_image_profile(os.environ))
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE, SHUTDOWN = 1, 2, 3, 4, 6  # of an inactive node
# Where tf2_msgs is not installed, stand_ins/tf2_msgs stands in for it.
TF2_MSGS_PATH = [] if find_spec('tf2_msgs') else [str(Path(__file__).with_name('stand_ins'))]
TFMessage = String if TF2_MSGS_PATH else import_module('tf2_msgs.msg').TFMessage
_worker = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0')[2:])
_domains = itertools.count(crc32(os.environ.get('PYTEST_XDIST_TESTRUNUID', '').encode()))


def find_free_domain() -> int:
    """Return a domain id that no other test uses."""
    # Odd ids for one worker and even ones for the other, because joining a domain takes time.
    domains = (1 + (2 * number + _worker) % 100 for number in _domains)
    return next(domain for domain in domains if not is_domain_in_use(domain))


def start_node(folder: Path, domain: int, *arguments: str, script: str = '') -> LoggedProcess:
    """Start depth_node, or a script that does, with ROS arguments; write its log to a folder."""
    module = ['-c', script] if script else ['-m', 'marigold_ros.ros.main']
    python_path = [*TF2_MSGS_PATH, *filter(None, [os.environ.get('PYTHONPATH')])]
    return LoggedProcess(
        'depth_node', [sys.executable, *module, '--ros-args', *arguments],
        folder, {**os.environ, **make_domain_environment(domain),
                 'PYTHONPATH': os.pathsep.join(python_path)})


@contextmanager
def node_in_process(*arguments: str) -> Iterator[tuple[DepthNode, Robot]]:
    """Run an active node in a thread of this process, so that faults can be injected."""
    domain = find_free_domain()
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', *arguments], context=context, domain_id=domain)
    node = DepthNode(context=context)
    node.start()
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    thread = threading.Thread(target=spin)
    thread.start()
    robot = Robot(domain)
    try:
        yield node, robot
    finally:
        robot.close()
        executor.shutdown()
        thread.join()
        node.destroy_node()
        rclpy.shutdown(context=context)


class Robot:
    """Publishers, subscribers and service clients in the node's domain."""

    def __init__(self, domain: int) -> None:
        """Join the domain."""
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node('robot', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.messages: dict[str, list] = defaultdict(list)
        self._subscriptions: dict[str, object] = {}
        self._publishers: dict[str, object] = {}
        self._clients: dict[str, object] = {}

    def close(self) -> None:
        """Leave the domain."""
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)

    def spin(self, seconds: float) -> None:
        """Spin for some seconds."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            self.executor.spin_once(timeout_sec=0.02)

    def until(self, condition, timeout_s: float = 60.0, what: str = 'condition'):
        """Spin until a condition is truthy, and return its value."""
        end_s = time.monotonic() + timeout_s
        while not (result := condition()):
            assert time.monotonic() < end_s, f'{what}: not reached in {timeout_s} s'
            self.executor.spin_once(timeout_sec=0.02)
        return result

    def listen(self, topic: str, message_type: type) -> None:
        """Subscribe with RELIABLE, and wait until both sides have matched."""
        self.listen_all({topic: message_type})

    def listen_all(self, topics: dict[str, type]) -> None:
        """Subscribe to several topics."""
        new = {topic: self.node.create_subscription(message_type, topic,
                                                    self.messages[topic].append, 100)
               for topic, message_type in topics.items() if topic not in self._subscriptions}
        self._subscriptions.update(new)
        for topic in topics:
            self.until(self._subscriptions[topic].get_publisher_count,
                       what=f'a publisher of {topic}')
        if new:
            self.settle()

    def settle(self) -> None:
        """
        Wait until the node has discovered this robot's subscriptions and publishers.

        The node may match later than this side, and computes nothing for a subscriber that it has
        not matched.  Discovery keeps its order, so that a node which futures a new client has
        discovered everything that was created before.
        """
        self.state()

    def ignore(self, topic: str) -> None:
        """Unsubscribe."""
        self.node.destroy_subscription(self._subscriptions.pop(topic))
        self.messages[topic].clear()

    def advertise(self, topic: str, message_type: type, *, reliable: bool = True) -> None:
        """Create a publisher and wait until the node has matched it."""
        self.offer(topic, message_type, reliable=reliable)
        self.wait_for_match(topic)
        self.settle()

    def offer(self, topic: str, message_type: type, *, reliable: bool = True,
              latched: bool = False) -> None:
        """Create a publisher without waiting for a subscription."""
        self._publishers[topic] = self.node.create_publisher(message_type, topic, QoSProfile(
            depth=50,
            reliability=(ReliabilityPolicy.RELIABLE if reliable
                         else ReliabilityPolicy.BEST_EFFORT),
            durability=(DurabilityPolicy.TRANSIENT_LOCAL if latched
                        else DurabilityPolicy.VOLATILE)))

    def wait_for_match(self, topic: str) -> None:
        """Wait until the node subscribes to a topic with the QoS of its publisher."""
        offered = self._publishers[topic].qos_profile
        policies = [(offered.reliability, offered.durability)]
        self.until(lambda: [(info.qos_profile.reliability, info.qos_profile.durability) for info
                            in self.node.get_subscriptions_info_by_topic(topic)] == policies,
                   what=f'a {offered.reliability.name} subscription to {topic}')
        self.until(self._publishers[topic].get_subscription_count, what='a match')

    def publish(self, topic: str, message) -> None:
        """Publish on a topic that has a publisher."""
        self._publishers[topic].publish(message)

    def retire(self, topic: str) -> None:
        """Destroy the publisher of a topic."""
        self.node.destroy_publisher(self._publishers.pop(topic))

    def call(self, service_type: type, name: str, request, timeout_s: float = 120.0):
        """Call a service and return the response."""
        future = self.request(service_type, name, request)
        self.until(future.done, timeout_s, what=f'a response of {name}')
        return future.result()

    def request(self, service_type: type, name: str, request) -> Future:
        """Call a service and return its future response."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(service_type, name)
        self.until(self._clients[name].service_is_ready, what=f'service {name}')
        return self._clients[name].call_async(request)

    def set_parameters(self, values: dict[str, object]) -> list[str]:
        """Set parameters of the node; return why each is rejected, or ''."""
        request = SetParameters.Request()
        for name, value in values.items():
            request.parameters.append(Parameter(name, value=value).to_parameter_msg())
        results = self.call(SetParameters, '/depth_node/set_parameters', request).results
        assert [each.successful for each in results] == [not each.reason for each in results]
        return [each.reason for each in results]

    def set_parameter(self, name: str, value) -> str:
        """Set a parameter of the node; return why it is rejected, or ''."""
        return self.set_parameters({name: value})[0]

    def change_state(self, transition: int) -> bool:
        """Request a lifecycle transition, and return whether it succeeded."""
        future = self.request_transition(transition)
        self.until(future.done, 120.0, what=f'a response to transition {transition}')
        return future.result().success

    def request_transition(self, transition: int) -> Future:
        """Request a lifecycle transition, and return its future response."""
        request = ChangeState.Request()
        request.transition.id = transition
        return self.request(ChangeState, '/depth_node/change_state', request)

    def state(self) -> str:
        """
        Return the lifecycle state of the node, requested by a new client.

        The request is repeated, because a response is lost if the server has not discovered the
        new client's reader yet.  The client is not destroyed, because the node logs an error if a
        response finds no client.
        """
        client = self.node.create_client(GetState, '/depth_node/get_state')
        self.until(client.service_is_ready, what='service /depth_node/get_state')
        futures: list[Future] = []
        requested_s = -math.inf

        def completed() -> Future | None:
            nonlocal requested_s
            if time.monotonic() - requested_s > 2.0:
                futures.append(client.call_async(GetState.Request()))
                requested_s = time.monotonic()
            return next((each for each in futures if each.done()), None)

        return self.until(completed, 120.0, 'a response of /depth_node/get_state'
                          ).result().current_state.label

    def enable(self, enabled: bool) -> None:
        """Call ~/enable."""
        assert self.call(SetBool, '/depth_node/enable', SetBool.Request(data=enabled)).success

    def reset_scale(self):
        """Call ~/reset_scale."""
        return self.call(Trigger, '/depth_node/reset_scale', Trigger.Request())

    def status_of(self, stamp_ns: int, timeout_s: float = 60.0) -> dict[str, str]:
        """Wait for the ~/status of a frame, and return its message and values."""
        def find():
            for array in self.messages['/depth_node/status']:
                if stamp_of(array.header) == stamp_ns:
                    status = array.status[0]
                    return {'message': status.message,
                            **{each.key: each.value for each in status.values}}
            return None
        return self.until(find, timeout_s, what=f'a status for {stamp_ns}')

    def diagnostics(self, name: str):
        """Wait for the next /diagnostics and return the status whose name ends with `name`."""
        self.listen('/diagnostics', DiagnosticArray)
        self.messages['/diagnostics'].clear()
        array = self.until(lambda: self.messages['/diagnostics'], what='/diagnostics')[-1]
        return next(each for each in array.status if each.name.endswith(name))

    def counters(self, camera: str) -> dict[str, int]:
        """Return the counters of a camera from the next /diagnostics."""
        values = self.diagnostics(f': {camera}').values
        return {each.key: int(each.value) for each in values if each.value.isdecimal()
                and each.key not in ('camera', 'scale', 'shift')
                and not each.key.startswith('last_') and not each.key.endswith('_anchors')}

    def cut(self, camera: str = 'camera') -> None:
        """Send an image of another size, so that nothing can be carried into the next one."""
        stamp_ns = time.time_ns()
        self.publish(f'/{camera}/image_raw', image(np.zeros((60, 160, 3), np.uint8), stamp_ns))
        assert self.status_of(stamp_ns)['outcome'] == 'processed'

    def status_of_run(self, show: Callable[[], int]) -> dict[str, str]:
        """Show frames until one has the depth of a run, and return its status."""
        def shown() -> dict[str, str] | None:
            status = self.status_of(show())
            return status if status['num_inference_steps'] != '0' else None

        return self.until(shown, what='a frame with the depth of a run')

    def find(self, topic: str, stamp_ns: int, timeout_s: float = 60.0):
        """Wait for the message with a stamp on a subscribed topic, and return it."""
        return self.until(lambda: next((each for each in self.messages[topic]
                                        if stamp_of(each.header) == stamp_ns), None),
                          timeout_s, what=f'{stamp_ns} on {topic}')


def stamp_of(header: Header) -> int:
    """Return the stamp of a header, ns."""
    return header.stamp.sec * 10 ** 9 + header.stamp.nanosec


def header(stamp_ns: int, frame_id: str = 'camera_optical_frame') -> Header:
    """Build a header."""
    sec, nanosec = divmod(stamp_ns, 10 ** 9)
    return Header(stamp=Time(sec=sec, nanosec=nanosec), frame_id=frame_id)


def image(pixels: np.ndarray, stamp_ns: int, encoding: str = 'rgb8', padding: int = 0) -> Image:
    """Build an image message, with `padding` bytes after each row."""
    rows = pixels.reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    return Image(header=header(stamp_ns), height=pixels.shape[0], width=pixels.shape[1],
                 encoding=encoding, step=rows.shape[1], data=rows.tobytes())


def compressed(stream: bytes, stamp_ns: int, image_format: str = 'png') -> CompressedImage:
    """Build a compressed image message."""
    return CompressedImage(header=header(stamp_ns), format=image_format, data=stream)


def camera_info(stamp_ns: int, width: int = 160, height: int = 120, f: float = 100.0,
                d: tuple[float, ...] = (0.0,) * 5, model: str = 'plumb_bob') -> CameraInfo:
    """Build the camera_info of a camera whose principal point is the image centre."""
    k = [f, 0.0, width / 2, 0.0, f, height / 2, 0.0, 0.0, 1.0]
    return CameraInfo(header=header(stamp_ns), width=width, height=height,
                      distortion_model=model, d=list(d), k=k,
                      r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
                      p=[*k[0:3], 0.0, *k[3:6], 0.0, *k[6:9], 0.0])


def floats(message: Image) -> np.ndarray:
    """Return the pixels of a 32FC1 image, [h, w]."""
    assert message.encoding == '32FC1'
    return np.frombuffer(message.data, np.float32).reshape(message.height, message.width)


def points(message: PointCloud2) -> np.ndarray:
    """Return x, y, z of an organized cloud, [h, w, 3]."""
    table = np.frombuffer(message.data, np.float32)
    return table.reshape(message.height, message.width, message.point_step // 4)[..., :3]


def clock(stamp_ns: int) -> Clock:
    """Build a /clock message."""
    return Clock(clock=header(stamp_ns).stamp)
