"""The ROS 2 node; no other folder imports rclpy or message packages."""
