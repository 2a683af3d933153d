"""Convert between arrays and message fields, without ROS."""
