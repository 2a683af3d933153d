"""The depth_node executable: a signal ends it in good order from its first moment on."""

from __future__ import annotations

import os
import signal
import sys

SIGNALS = (signal.SIGINT, signal.SIGTERM)
# How long the end of the process waits for a denoising step or a load under way.
END_PATIENCE_S = 2.0


def main(args: list[str] | None = None) -> int:
    """
    Run the node until SIGINT or SIGTERM.

    Returns
    -------
    int
        0 after a signal, also if it comes twice, while the process starts, while the model loads
        or in the middle of a frame; 2 if a parameter's initial value is refused.
    """
    importing = True

    # A KeyboardInterrupt would land anywhere: in an import, where it is lost or takes a traceback
    # with it, or in the teardown.  Later rclpy's handlers, which call this one too, shut the
    # context down and wake the executor.
    def end_if_nothing_is_open(*_: object) -> None:
        if importing:
            os._exit(0)

    for number in SIGNALS:
        signal.signal(number, end_if_nothing_is_open)

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
            ended = node.release(END_PATIENCE_S)
            node.destroy_node()
    except ParameterException as err:
        rclpy.logging.get_logger('depth_node').fatal(str(err))
        rclpy.try_shutdown()
        return 2
    except Exception:  # rclpy has many words for a context that a signal has shut down
        if rclpy.ok():
            raise
    rclpy.try_shutdown()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if not ended:  # Python would wait for the thread, and launch kills after 5 s
        os._exit(0)
    return 0


if __name__ == '__main__':
    sys.exit(main())
