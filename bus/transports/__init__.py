"""Transports: the ports' other side."""
