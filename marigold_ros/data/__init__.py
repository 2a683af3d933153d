"""What can be read and written without ROS: bags, RGB-D folders, synthetic scenes."""
