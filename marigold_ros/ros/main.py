"""The depth_node executable, which SIGINT or SIGTERM ends cleanly at any moment."""

from __future__ import annotations

import gc
import os
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How long the shutdown waits for the end of a denoising step or a load.
SHUTDOWN_TIMEOUT_S = 2.0
# How long the thread of the frames waits for Python's lock while another one computes; Python's
# own 5 ms are half of what a frame takes.
SWITCH_INTERVAL_S = 0.0005


def main(args: list[str] | None = None) -> int:
    """
    Run the node until SIGINT or SIGTERM.

    Returns
    -------
    int
        0 after a signal, also if it is repeated, or comes while the process starts, the model
        loads or a frame is processed; 2 if ROS cannot start, or a parameter's initial value is
        invalid.
    """
    importing = True

    # Python's own handler would raise KeyboardInterrupt anywhere: in an import, where it is lost
    # or printed as a traceback, or in the teardown.  After the imports, rclpy's handlers, which
    # also call this one, shut the context down and wake the executor.
    def exit_while_importing(*_: object) -> None:
        if importing:
            os._exit(0)

    for number in SIGNALS:
        signal.signal(number, exit_while_importing)

    import rclpy
    from rclpy.exceptions import ParameterException

    from marigold_ros.depth.errors import MarigoldError
    from marigold_ros.memory import keep_freed_memory
    from marigold_ros.ros.depth_node import DepthNode
    from marigold_ros.ros.parameter_files import warn_of_unused_files
    from marigold_ros.ros.startup import init_rclpy
    from marigold_ros.stop_flag import ignore_signals

    keep_freed_memory()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    ended = True
    try:
        init_rclpy(args)
        importing = False
        node = DepthNode()
        try:
            warn_of_unused_files(node, sys.argv if args is None else args)
            node.run()
        finally:
            # Searching torch's objects for cycles takes seconds on a busy machine, here and at
            # the end of Python; launch kills after 5 s.
            gc.freeze()
            ended = node.release(SHUTDOWN_TIMEOUT_S)
            node.destroy_node()
    except (MarigoldError, ParameterException) as err:
        rclpy.logging.get_logger('depth_node').fatal(str(err))
        rclpy.try_shutdown()
        return 2
    except Exception:  # rclpy raises various types after a signal has shut the context down
        if rclpy.ok():
            raise
    rclpy.try_shutdown()
    ignore_signals()
    if not ended:  # Python would wait for the worker's thread
        os._exit(0)
    return 0


if __name__ == '__main__':
    sys.exit(main())
