"""What can be read and written without ROS: bags, data sets, shards."""
