"""Image in, affine-invariant depth out, without ROS."""
