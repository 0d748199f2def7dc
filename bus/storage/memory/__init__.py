"""Stores in the memory of one process. They are empty after a restart."""
