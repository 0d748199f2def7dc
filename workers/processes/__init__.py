"""Processes that a worker starts for work that must be possible to end at any time.

    control   starts a process, talks to it over a pipe, and kills it
    pool      keeps processes, and assigns each to one job at a time
    child     functions for the program of the process

A thread cannot be ended, and C code that holds the GIL in a thread blocks the event loop. The
transcription worker and the documentation worker share this package.
"""
