"""Policies, one a file. They never import each other; their order is in `bus/stacks.py`."""
