"""Failure locations: the places in the code where an error was raised, as `file:line function`.

The texts have names of files and functions, and never values, so they are safe to log and to store.
"""

from collections.abc import Callable, Iterator

from bus.messaging.traceback_frames import Origin, TracebackFrame, TracebackFrames, shorten_text

__all__ = ["failure_facts", "failure_frames", "failure_location"]

MAX_ERRORS = 8
"""Maximum number of errors to read: the failure, its causes, and the members of a group."""
MAX_CLASS_LENGTH = 80
CALLERS_OF_USERS = frozenset({"pydantic"})
"""Installed packages that the bus calls, and that then call code of the service."""

Matches = Callable[[TracebackFrame], bool]


def failure_location(error: BaseException) -> str | None:
    """Return the place in the service's code where an error was raised, as `file:line function`.

    This is the innermost frame outside of installed packages, the standard library and the bus. The
    location of a group is that of its first member. If a library or the bus raised the error from
    another error, the other error's frames count too.

    A service can itself be an installed package. The location is then the innermost frame of the
    package that the bus called. An error that no code of a service raised has the innermost frame.

    Returns:
        The location, such as `billing/service.py:43 quote`. None if the error was never raised.
    """
    return _Failure(error).location()


def failure_frames(error: BaseException) -> tuple[str, ...]:
    """Return all frames of an error, each as `file:line function`, the outermost first.

    The frames of the members of a group follow, and those of a cause (`raise … from error`). The
    last frame of a member or cause also has the name of its class: `file:line function (KeyError)`.

    A line such as `… 950 more` replaces the middle of a long traceback. At most 8 errors are read.
    """
    return tuple(_Failure(error).lines())


def failure_facts(error: BaseException) -> dict[str, object]:
    """Return the fields of a log line about an error: `error` (class), `where` and `frames`."""
    failure = _Failure(error)
    return {
        "error": type(error).__name__,
        "where": failure.location(),
        "frames": failure.lines(),
    }


class _Failure:
    """An error with its causes and members, and the frames of all of them."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._frames = {
            id(linked): (linked, TracebackFrames(linked)) for linked in _linked_errors(error)
        }

    def lines(self) -> list[str]:
        lines: list[str] = []
        for error, frames in self._frames.values():
            found = frames.lines()
            if found and error is not self._error:
                found[-1] += f" ({shorten_text(type(error).__name__, MAX_CLASS_LENGTH)})"
            lines += found
        return lines

    def location(self) -> str | None:
        for matches in self._preferences():
            frame = self._find_frame(self._error, matches, set())
            if frame is not None:
                return str(frame)
        return None

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
        for depth, frame in enumerate(reversed(self._frames[id(error)][1])):
            if matches(frame):
                if depth == 0 and not isinstance(error, BaseExceptionGroup):
                    return frame  # the service raised this error itself, not from its cause
                own = frame
                break
        for inner in _inner_errors(error):
            found = self._find_frame(inner, matches, seen)
            if found is not None:
                return found
        return own


def _linked_errors(error: BaseException) -> list[BaseException]:
    """Return the error, the members of a group, and all causes. Each error is there once."""
    found: list[BaseException] = []
    seen: set[int] = set()
    waiting = [error]
    while waiting and len(found) < MAX_ERRORS:
        current = waiting.pop()
        if id(current) not in seen:
            seen.add(id(current))
            found.append(current)
            waiting += reversed(_inner_errors(current))
    return found


def _inner_errors(error: BaseException) -> list[BaseException]:
    members = error.exceptions[:MAX_ERRORS] if isinstance(error, BaseExceptionGroup) else ()
    cause = error.__cause__
    return [*members] if cause is None else [*members, cause]
