"""Bags without ROS: reading, writing, matching."""
