"""Contracts of the reference application, by owning service and version."""
