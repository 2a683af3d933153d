"""Adaptive-step Marigold depth for ROS 2: camera images in, depth and point clouds out."""
