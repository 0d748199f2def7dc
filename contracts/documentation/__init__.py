"""Requests, jobs and events of the documentation service.

Version 1 is in `v1`, and its typed client is in `client`.
"""
