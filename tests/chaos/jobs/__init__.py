"""Durable jobs under faults: crash points, and bursts of jobs through several processes."""
