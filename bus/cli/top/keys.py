"""Keys that a full-screen command reads from its terminal."""

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator

__all__ = ["read_keys"]

MAX_BYTES = 64
LOCAL_MODES, CONTROL_CHARACTERS = 3, 6
"""Positions in the attributes of `termios.tcgetattr`."""


@contextlib.contextmanager
def read_keys(on_key: Callable[[str], None]) -> Iterator[None]:
    """Call `on_key` with each character that the user types, inside the block.

    At the end of the block, also after an error, the terminal has its former attributes again. If
    standard input is not a terminal, no key is read.
    """
    descriptor = _terminal_of_input()
    if descriptor is None:
        yield
        return
    loop, before = asyncio.get_running_loop(), termios.tcgetattr(descriptor)

    def on_input() -> None:
        typed = os.read(descriptor, MAX_BYTES)
        if not typed:  # the terminal was closed
            loop.remove_reader(descriptor)
        for character in typed.decode(errors="ignore"):
            on_key(character)

    try:
        tty.setcbreak(descriptor, termios.TCSANOW)
        _forbid_suspension(descriptor)
        loop.add_reader(descriptor, on_input)
        yield
    finally:
        loop.remove_reader(descriptor)
        # Discard what was typed for this command, so that the shell does not run it.
        termios.tcsetattr(descriptor, termios.TCSAFLUSH, before)


def _forbid_suspension(descriptor: int) -> None:
    """Turn Ctrl-Z off. A suspended command would leave the shell on its full screen."""
    attributes = termios.tcgetattr(descriptor)
    attributes[CONTROL_CHARACTERS][termios.VSUSP] = os.fpathconf(descriptor, "PC_VDISABLE")
    termios.tcsetattr(descriptor, termios.TCSANOW, attributes)


def _terminal_of_input() -> int | None:
    with contextlib.suppress(AttributeError, OSError, ValueError):
        descriptor = sys.stdin.fileno()
        if os.isatty(descriptor):
            return descriptor
    return None
