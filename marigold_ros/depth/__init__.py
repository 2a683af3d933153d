"""Relative depth from images, without ROS."""
