"""Choice of the frames of a failure that a terminal shows below the failure's line."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["ConsoleFrames"]

CALLERS = ("bus/", "fast_depends/")
"""Beginnings of the frames that call handlers: those of the bus, and of the library of `Depends`.

They are the same for each handler, and are never the place of the service's fault.
"""
HANDLING_LOGGER = "bus.messages"
"""Logger of the line that is written first when a handler fails."""
MAX_REMEMBERED = 256
"""Maximum number of failed messages to remember."""


class ConsoleFrames:
    """Chooses the frames to show, and remembers the messages that have had theirs shown.

    A job that failed for the last time has two lines: the failure of its handler, and its dead
    letter. Both records have all frames, for readers of JSON. A terminal shows them once.
    """

    def __init__(self, *, all_frames: bool) -> None:
        """Create a choice.

        Args:
            all_frames: True shows all frames. False leaves out the frames that call the handler, if
                the failure has other frames.
        """
        self._all_frames = all_frames
        self._shown: OrderedDict[str, list[str]] = OrderedDict()

    def choose(self, event: Mapping[str, Any], frames: list[str]) -> Sequence[str]:
        """Return the frames of a record that are shown, the outermost first.

        Args:
            event: The record, with its fields.
            frames: All frames of the record.
        """
        own = [frame for frame in frames if not frame.startswith(CALLERS)] or frames
        # The later record has more frames of the bus, because the error has passed through them.
        if self._is_repeated(event, own):
            return ()
        return frames if self._all_frames else own

    def _is_repeated(self, event: Mapping[str, Any], own: list[str]) -> bool:
        message_id = event.get("message_id")
        if not isinstance(message_id, str):
            return False
        if event.get("logger") != HANDLING_LOGGER:
            return self._shown.get(message_id) == own
        self._shown[message_id] = own
        self._shown.move_to_end(message_id)
        if len(self._shown) > MAX_REMEMBERED:
            self._shown.popitem(last=False)
        return False
