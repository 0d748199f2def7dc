"""Demonstration of the reference application.

A recording becomes a transcript, a note and documents, and every step is shown.
"""
