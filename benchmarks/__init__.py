"""Benchmarks of the bus and its peers: `make bench` or `python -m benchmarks --help`."""
