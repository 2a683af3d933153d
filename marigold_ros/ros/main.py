"""The depth_node executable, which SIGINT or SIGTERM ends cleanly at any moment."""

from __future__ import annotations

import os
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How long the shutdown waits for the end of a denoising step or a load.
SHUTDOWN_TIMEOUT_S = 2.0


def main(args: list[str] | None = None) -> int:
    """
    Run the node until SIGINT or SIGTERM.

    Returns
    -------
    int
        0 after a signal, also if it is repeated, or comes while the process starts, the model
        loads or a frame is processed; 2 if the initial value of a parameter is invalid.
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

    from marigold_ros.ros.depth_node import DepthNode
    from marigold_ros.ros.memory import keep_freed_memory

    keep_freed_memory()
    rclpy.init(args=args)
    importing = False
    ended = True
    try:
        node = DepthNode()
        try:
            node.run()
        finally:
            ended = node.release(SHUTDOWN_TIMEOUT_S)
            node.destroy_node()
    except ParameterException as err:
        rclpy.logging.get_logger('depth_node').fatal(str(err))
        rclpy.try_shutdown()
        return 2
    except Exception:  # rclpy raises various types after a signal has shut the context down
        if rclpy.ok():
            raise
    rclpy.try_shutdown()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if not ended:  # Python would wait for the worker's thread, and launch kills after 5 s
        os._exit(0)
    return 0


if __name__ == '__main__':
    sys.exit(main())
