"""Stands in for tf2_msgs, which PyPI's ROS lacks."""
