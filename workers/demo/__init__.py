"""The demonstration: a recording goes in, its transcript comes out, and every step can be watched."""
