"""Run a small node of a benchmark in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from marigold_ros.stop_flag import StopFlag


def spin_until_stopped(name: str, make: Callable[[Any], object], stop: StopFlag) -> None:
    """
    Spin a node until Ctrl-C.

    Parameters
    ----------
    name : str
        Of the node.
    make : callable
        Creates publishers and subscriptions of the node, and returns what must be kept.
    stop : StopFlag
    """
    rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(name, enable_rosout=False, start_parameter_services=False)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    kept = [make(node)]
    while not stop.requested:
        executor.spin_once(timeout_sec=0.1)
    kept.clear()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
