"""Cycle a node through its lifecycle states; importable by a spawned process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from pathlib import Path
import re
import threading
import time

from node_harness import find_free_domain, image
import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image

from marigold_ros.depth.engine import DepthEngine
from marigold_ros.ros.depth_node import DepthNode
from marigold_ros.ros.frame_buffer import ReceivedFrame


def resources(node: DepthNode) -> dict[str, int]:
    """Count the resources that a lifecycle cycle could leak."""
    gc.collect()
    return {
        'threads': threading.active_count(), 'files': len(list(Path('/proc/self/fd').iterdir())),
        'publishers': len(list(node.publishers)), 'subscriptions': len(list(node.subscriptions)),
        'waitables': len(list(node.waitables)), 'parameters': len(node._parameters),
        'references': len(node.default_callback_group.entities)}


def allocated_mib() -> float:
    """Return the resident memory without that of files, once free memory is released."""
    ctypes.CDLL(None).malloc_trim(0)
    kib = re.search(r'RssAnon:\s+(\d+) kB', Path('/proc/self/status').read_text())
    return int(kib[1]) / 1024


@contextlib.contextmanager
def idle_node(checkpoint):
    """Create a node and an executor with it in this thread."""
    context = rclpy.Context()
    rclpy.init(args=['--ros-args', '-p', f'checkpoint:={checkpoint}',
                     '-p', 'max_inference_steps:=1'], context=context,
               domain_id=find_free_domain())
    node = DepthNode(context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    gc.collect()
    gc.freeze()  # keeps the garbage collection at each of 200 cleanups fast
    yield node, executor
    gc.unfreeze()
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown(context=context)


class HeldRuns:
    """Runs of the networks that do not end before they are released."""

    def __init__(self) -> None:
        """Replace the engine's inference in this process."""
        self._begun, self._released = threading.Event(), threading.Event()
        infer_batch = DepthEngine.infer_batch

        def infer(engine, *args, **kwargs):
            if not kwargs.get('upsample', True):  # not of a warm-up
                self._begun.set()
                assert self._released.wait(60.0)
            return infer_batch(engine, *args, **kwargs)

        DepthEngine.infer_batch = infer

    def begin(self, node: DepthNode) -> None:
        """Let a frame wait for a run, which has begun on return."""
        self._begun.clear()
        self._released.clear()
        stamp_ns = time.time_ns()
        node._on_frame(ReceivedFrame(
            'camera', serialize_message(image(np.zeros((60, 160, 3), np.uint8), stamp_ns)), False,
            stamp_ns, 'camera_optical_frame', time.monotonic()))
        assert self._begun.wait(60.0)

    def release(self) -> None:
        """Let the run end."""
        self._released.set()


def after_20_and_200_cycles(checkpoint) -> list[tuple[dict[str, int], int, float]]:
    """
    Return resources, number of objects and memory (MiB) after 20 and after 200 cycles.

    In each, the node is deactivated and activated in the middle of a run.
    """
    found, runs = [], HeldRuns()
    with idle_node(checkpoint) as (node, executor):
        node.create_subscription(Image, '/camera/depth_relative/image', lambda _: None, 1)
        for cycle in range(1, 201):
            for transition in (node.trigger_configure, node.trigger_activate):
                assert transition() == TransitionCallbackReturn.SUCCESS
            executor.spin_once(timeout_sec=0)
            runs.begin(node)
            for transition in (node.trigger_deactivate, node.trigger_activate,
                               node.trigger_deactivate):
                assert transition() == TransitionCallbackReturn.SUCCESS
            runs.release()
            assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
            if cycle in (20, 200):
                # The executor keeps references to ready entities until it has executed them.
                for _ in range(10):
                    executor.spin_once(timeout_sec=0)
                gc.collect()
                node.release()  # again, to drop references to entities destroyed since
                found.append((resources(node), len(gc.get_objects()), allocated_mib()))
    return found
