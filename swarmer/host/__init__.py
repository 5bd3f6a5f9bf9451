"""What swarmer changes on this machine when asked: its DNS, and whom it trusts."""
