"""Relative depth to metres: anchors, fit, filter, sources and outputs; no ROS."""
