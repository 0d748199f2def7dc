"""Processes that a thread other than the main thread has forked.

Such a child continues in that thread, and has no main thread that ends the interpreter. It ends
when its last thread ends, also if that is a daemon thread. So a daemon thread must end by itself.
"""

import asyncio
import os
import threading

__all__ = ["ThreadForks", "threads_have_ended"]

CHECK_SECONDS = 0.25
"""Seconds between two checks that the threads of the application have ended."""


class ThreadForks:
    """The record of the forks of this process and of its parents."""

    def __init__(self) -> None:
        """Begin the record at the import of this module."""
        self.is_child_of_thread = False
        """True if this process, or a parent that it continues, was forked outside of main."""
        self._forking = threading.local()
        os.register_at_fork(before=self._before, after_in_child=self._after_in_child)

    def _before(self) -> None:
        is_main = threading.get_ident() == threading.main_thread().ident
        self._forking.is_outside_of_main = not is_main

    def _after_in_child(self) -> None:
        if self._forking.is_outside_of_main:
            self.is_child_of_thread = True


async def threads_have_ended() -> None:
    """Wait until the thread that has forked the process has ended, and all but daemon threads."""
    main = threading.main_thread()
    # No event reports the end of a thread.
    while any(  # noqa: ASYNC110
        each is main or not each.daemon for each in threading.enumerate()
    ):
        await asyncio.sleep(CHECK_SECONDS)
