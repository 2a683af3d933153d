"""Metric depth from relative depth: anchors, scale fit, filter, sources and outputs; no ROS."""
