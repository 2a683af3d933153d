"""What metres can be measured from: one kind of source a file."""
