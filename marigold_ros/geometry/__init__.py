"""From affine-invariant depth to metres and points, without ROS."""
