"""Demonstration of the reference application.

It turns a recording into a transcript, a note and documents, and shows every step.
"""
