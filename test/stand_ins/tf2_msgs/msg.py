"""
A type for /tf: the middleware carries serialized messages as they are, whatever their type.

So the node receives the bytes of a real TFMessage, and only a subscriber that lets rclpy create
objects would notice the difference.
"""

from std_msgs.msg import String as TFMessage  # noqa: F401
