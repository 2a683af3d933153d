"""Camera models, unprojection, poses and surface filters, without ROS."""
