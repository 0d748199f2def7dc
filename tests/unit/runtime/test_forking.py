"""Tests of the event loops that are protected from forked children."""

import asyncio

import pytest

from bus.runtime import forking
from bus.runtime.forking import protect_parent


class ForeignLoop:
    """An event loop that allows no weak references, as the one of another library."""

    __slots__ = ()


def test_an_event_loop_without_weak_references_can_use_a_bus(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asyncio, "get_running_loop", ForeignLoop)
    protect_parent()


def test_a_fork_ends_although_another_thread_registers_the_hooks_in_the_middle_of_it() -> None:
    """Call only the hooks that run after the fork."""
    forking._release_signals()
    forking._separate_child()
