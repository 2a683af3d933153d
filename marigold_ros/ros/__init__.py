"""The only folder that imports rclpy or message packages."""
