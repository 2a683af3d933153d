"""Read and write bags, data sets and shards; ROS is not needed."""
