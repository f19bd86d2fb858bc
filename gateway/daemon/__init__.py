"""What runs while the gateway runs: the loop, what it enforces, and what takes time."""
