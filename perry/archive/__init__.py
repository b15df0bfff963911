"""What was said stays: every session that the daemon has seen, on disk, and found by its words."""
