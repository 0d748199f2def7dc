"""Failure locations: the places in the code where an error was raised, as `file:line function`.

The texts have names of files and functions, and never values, so they are safe to log and to store.
"""

from collections.abc import Callable, Iterable, Iterator

from bus.errors import BusError, member_errors
from bus.messaging.failure_origin import (
    PROGRAMMING_ERRORS,
    has_remote_cause,
    is_blamed_on_message,
)
from bus.messaging.traceback_frames import Origin, TracebackFrame, TracebackFrames, shorten_text

__all__ = ["failure_facts", "failure_frames", "failure_location"]

MAX_ERRORS = 8
"""Maximum number of errors to read: the failure, its causes, and the members of a group."""
MAX_CLASS_LENGTH = 80
MAX_CLASSES = 4
"""Maximum number of classes of a group's members that a log line names."""
CALLERS_OF_USERS = frozenset({"pydantic"})
"""Installed packages that the bus calls, and that then call code of the service."""

INSIDE_THE_BUS = frozenset({Origin.BUS, Origin.STANDARD_LIBRARY})

Matches = Callable[[TracebackFrame], bool]


def failure_location(error: BaseException) -> str | None:
    """Return the place in the service's code where an error was raised, as `file:line function`.

    This is the innermost frame outside of installed packages, the standard library and the bus. The
    location of a group is that of its first member. If a library or the bus raised the error from
    another error, the other error's frames count too.

    If a handler returned a wrong result, the location is the definition of the handler. If the
    content of a received message broke the contract, no code failed, so the location is None. A
    validator of the contract that raised an exception is the location all the same. The location
    is also None if the bus refused a message, for example because of its key or its deadline.

    A service can itself be an installed package. The location is then the innermost frame of the
    package that the bus called. An error that no code of a service raised has the innermost frame.

    Returns:
        The location, such as `billing/service.py:43 quote`. None if the error was never raised,
        or if no code of the service failed.
    """
    return _Failure(error).location()


def failure_frames(error: BaseException) -> tuple[str, ...]:
    """Return all frames of an error, each as `file:line function`, the outermost first.

    The frames of the members of a group follow, and those of a cause (`raise … from error`) or
    context (`raise` in an `except` block). The last frame of a member, cause or context also has
    the name of its class: `file:line function (KeyError)`.

    A line such as `… 950 more` replaces the middle of a long traceback. At most 8 errors are read.
    If there are others, the last line is such as `… 13 more errors`.
    """
    return tuple(_Failure(error).lines())


def failure_facts(error: BaseException) -> dict[str, object]:
    """Return the fields of a log line about an error: `error` (class), `where` and `frames`.

    A group also has `members`, the classes of its members.
    """
    failure = _Failure(error)
    facts: dict[str, object] = {
        "error": type(error).__name__,
        "where": failure.location(),
        "frames": failure.lines(),
    }
    if isinstance(error, BaseExceptionGroup):
        facts["members"] = _member_classes(error)
    return facts


def _member_classes(group: BaseException) -> list[str]:
    """Return the classes of a group's members, each once. The last item has the number of others.

    The members of nested groups are included.
    """
    kinds = (type(member).__name__ for member in member_errors(group))
    names = list(dict.fromkeys(shorten_text(kind, MAX_CLASS_LENGTH) for kind in kinds))
    more = len(names) - MAX_CLASSES
    return names if more <= 0 else [*names[:MAX_CLASSES], f"… {more} more"]


class _Failure:
    """An error with its causes and members, and the frames of all of them."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        linked, self._left_out = _linked_errors(error)
        self._frames = {id(each): (each, TracebackFrames(each)) for each in linked}

    def lines(self) -> list[str]:
        lines: list[str] = []
        if self._has_no_place():
            return lines
        for error, frames in self._frames.values():
            found = frames.lines()
            if found and error is not self._error:
                found[-1] += f" ({shorten_text(type(error).__name__, MAX_CLASS_LENGTH)})"
            lines += found
        if self._left_out:
            lines.append(f"… {self._left_out} more error{'s' if self._left_out > 1 else ''}")
        return lines

    def location(self) -> str | None:
        if self._has_no_place():
            return None
        for matches in self._preferences():
            frame = self._find_frame(self._error, matches, set())
            if frame is not None:
                return str(frame)
        return None

    def _has_no_place(self) -> bool:
        """Return True if no code failed. The frames would then mislead the reader.

        The content of the message is the reason, or the bus refused the message. An error of the
        bus that only a change of code can fix has a place.
        """
        if is_blamed_on_message(self._error):
            return len(self._frames) == 1
        if not isinstance(self._error, BusError) or isinstance(self._error, PROGRAMMING_ERRORS):
            return False
        return all(
            frame.origin in INSIDE_THE_BUS
            for _, frames in self._frames.values()
            for frame in reversed(frames)
        )

    def _preferences(self) -> Iterator[Matches]:
        """Yield the kinds of frames that a location can have. The best kind is first."""
        yield lambda frame: frame.origin is Origin.SERVICE
        yield lambda frame: frame.origin is Origin.GENERATED
        packages = (frame.package for _, frames in self._frames.values() for frame in frames)
        called = next((name for name in packages if name and name not in CALLERS_OF_USERS), None)
        if called is not None:
            yield lambda frame: frame.package == called
        yield lambda _: True

    def _find_frame(
        self, error: BaseException, matches: Matches, seen: set[int]
    ) -> TracebackFrame | None:
        """Return the innermost frame that matches. A cycle of causes ends the search."""
        if id(error) in seen or id(error) not in self._frames:
            return None
        seen.add(id(error))
        own = None
        frames = self._frames[id(error)][1]
        for depth, frame in enumerate(_candidates(error, frames)):
            if matches(frame):
                if depth == 0 and _is_raised_here(error, frames):
                    return frame  # the service raised this error itself, not from its cause
                own = frame
                break
        for inner in _inner_errors(error):
            # A context is often an earlier problem that the code handled, such as a missing key.
            if own is not None and inner is error.__context__ and inner is not error.__cause__:
                continue
            found = self._find_frame(inner, matches, seen)
            if found is not None:
                return found
        return own


def _candidates(error: BaseException, frames: TracebackFrames) -> Iterable[TracebackFrame]:
    """Return the frames of an error that can be its location, the best first."""
    if is_blamed_on_message(error):
        return ()
    return reversed(frames) if frames.handler is None else (frames.handler,)


def _is_raised_here(error: BaseException, frames: TracebackFrames) -> bool:
    """Return True if the innermost frame is the location. The causes are then not searched.

    Python itself replaces a StopIteration that leaves a coroutine with a RuntimeError, whose
    innermost frame is that of the caller. A serializer can be the reason that a result is wrong.
    """
    if isinstance(error, BaseExceptionGroup) or frames.handler is not None:
        return False
    is_stop = isinstance(error.__cause__, StopIteration | StopAsyncIteration)
    return not (is_stop and type(error) is RuntimeError)


def _linked_errors(error: BaseException) -> tuple[list[BaseException], int]:
    """Return the error, the members of a group, and all causes, and the number of others.

    Each error is there once.
    """
    found: list[BaseException] = []
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        current = waiting.pop()
        if id(current) not in seen:
            seen.add(id(current))
            if len(found) < MAX_ERRORS:
                found.append(current)
            waiting += reversed(_inner_errors(current))
    return found, len(seen) - len(found)


def _inner_errors(error: BaseException) -> list[BaseException]:
    """Return the members of a group, and the cause or else the context that Python shows."""
    members = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    if has_remote_cause(error):
        return [*members]
    shown = None if error.__suppress_context__ else error.__context__
    inner = shown if error.__cause__ is None else error.__cause__
    return [*members] if inner is None else [*members, inner]
