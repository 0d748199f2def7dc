"""The measured programs: a file for each peer, run as processes that take orders (see `stage`)."""
