"""The places at which a task waits, as `file:line function`, without values."""

import asyncio
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from bus.messaging.traceback_frames import Origin, TracebackFrame, running_frame

__all__ = ["task_frames", "waiting_place"]

MAX_FRAMES = 20
"""Maximum number of frames. The innermost ones are left out after that."""


def task_frames(task: asyncio.Task[Any]) -> list[TracebackFrame]:
    """Return the frames of the coroutines that a task runs or awaits, the outermost first."""
    return [running_frame(frame) for frame in _frames_of(task.get_coro())]


def waiting_place(frames: Sequence[TracebackFrame]) -> str:
    """Return the innermost frame that is neither of the bus nor of the standard library."""
    inside = (Origin.BUS, Origin.STANDARD_LIBRARY)
    places = [frame for frame in frames if frame.origin not in inside] or frames
    return str(places[-1]) if places else "an unknown place"


def _frames_of(awaited: Any) -> Iterator[FrameType]:
    for _ in range(MAX_FRAMES):
        frame = next(
            (
                found
                for name in ("cr_frame", "gi_frame", "ag_frame")
                if (found := getattr(awaited, name, None)) is not None
            ),
            None,
        )
        if frame is None:
            return
        yield frame
        awaited = next(
            (
                found
                for name in ("cr_await", "gi_yieldfrom", "ag_await")
                if (found := getattr(awaited, name, None)) is not None
            ),
            None,
        )
