"""Arrays to and from message fields, without ROS: the one home of every message convention."""
