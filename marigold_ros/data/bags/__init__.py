"""Read, write and match the messages of bags; ROS is not needed."""
