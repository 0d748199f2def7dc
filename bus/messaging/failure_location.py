"""Failure locations: the places in the code where an error was raised, as `file:line function`.

The texts have names of files and functions, and never values, so they are safe to log and to store.
"""

from collections.abc import Callable, Iterator

from bus.messaging.traceback_frames import Frame, Origin, printable, read_frames

__all__ = ["failure_facts", "failure_frames", "failure_location"]

MAX_ERRORS = 8
"""Maximum number of errors to read: the failure, its causes, and the members of a group."""
MAX_CLASS_LENGTH = 80
CALLERS_OF_USERS = frozenset({"pydantic"})
"""Installed packages that the bus calls, and that then call code of the service."""

Matches = Callable[[Frame], bool]


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
    for matches in _preferences(error):
        frame = _find_frame(error, matches, set())
        if frame is not None:
            return str(frame)
    return None


def failure_frames(error: BaseException) -> tuple[str, ...]:
    """Return all frames of an error, each as `file:line function`, the outermost first.

    The frames of the members of a group follow, and those of a cause (`raise … from error`). The
    last frame of a member or cause also has the name of its class: `file:line function (KeyError)`.

    A line such as `… 950 more` replaces the middle of a long traceback. At most 8 errors are read.
    """
    lines: list[str] = []
    for linked in _linked_errors(error):
        found = read_frames(linked).lines()
        if found and linked is not error:
            found[-1] += f" ({printable(type(linked).__name__, MAX_CLASS_LENGTH)})"
        lines += found
    return tuple(lines)


def failure_facts(error: BaseException) -> dict[str, object]:
    """Return the fields of a log line about an error: `error` (class), `where` and `frames`."""
    return {
        "error": type(error).__name__,
        "where": failure_location(error),
        "frames": list(failure_frames(error)),
    }


def _preferences(error: BaseException) -> Iterator[Matches]:
    """Yield the kinds of frames that a location can have. The best kind is first."""
    yield lambda frame: frame.place.origin is Origin.SERVICE
    yield lambda frame: frame.place.origin is Origin.GENERATED
    called = next(
        (
            frame.place.package
            for linked in _linked_errors(error)
            for frame in read_frames(linked)
            if frame.place.package is not None and frame.place.package not in CALLERS_OF_USERS
        ),
        None,
    )
    if called is not None:
        yield lambda frame: frame.place.package == called
    yield lambda _: True


def _find_frame(error: BaseException, matches: Matches, seen: set[int]) -> Frame | None:
    """Return the innermost frame that matches. A cycle of causes ends the search."""
    if id(error) in seen or len(seen) >= MAX_ERRORS:
        return None
    seen.add(id(error))
    frames = read_frames(error)
    own, last = frames.innermost(matches), frames.innermost(lambda _: True)
    if not isinstance(error, BaseExceptionGroup) and own is not None and own is last:
        return own  # the service raised this error itself, so the place of the cause is another
    for inner in _inner_errors(error):
        found = _find_frame(inner, matches, seen)
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
