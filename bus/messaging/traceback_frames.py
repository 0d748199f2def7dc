"""Frames of a traceback as text: file, line and function, with the origin of the code."""

import os
import sysconfig
from collections import deque
from collections.abc import Iterator
from enum import Enum, auto
from functools import lru_cache
from pathlib import Path
from types import FrameType, TracebackType
from typing import NamedTuple

from typing_extensions import override

from bus.messaging.escaped_text import one_line
from bus.messaging.failure_origin import HandlerPlace, blamed_handler

__all__ = ["Origin", "TracebackFrame", "TracebackFrames", "running_frame", "shorten_text"]

MAX_OUTER_FRAMES, MAX_INNER_FRAMES = 8, 32
"""Maximum number of frames of one error, counted from the outermost and the innermost frame.

The frames between them are left out. A recursion that did not end has a thousand of them.
"""
MAX_PATH_LENGTH, MAX_FUNCTION_LENGTH = 160, 80

BUS = str(Path(__file__).parents[1])
SITES = ("/site-packages/", "/dist-packages/")
STANDARD_LIBRARY = tuple(
    {
        form
        for folder in (
            sysconfig.get_path("stdlib"),
            sysconfig.get_path("platstdlib"),
            str(Path(os.__file__).parent),
        )
        for form in (folder, os.path.realpath(folder))
    }
)


class Origin(Enum):
    """Origin of the code of a frame."""

    SERVICE = auto()
    """A file outside of the installed packages."""
    GENERATED = auto()
    """Code that has no file, such as the `__init__` of a dataclass."""
    PACKAGE = auto()
    """A file of an installed package."""
    STANDARD_LIBRARY = auto()
    BUS = auto()


class CodePlace(NamedTuple):
    """File and function of a frame, as they are shown."""

    origin: Origin
    path: str
    function: str


class TracebackFrame(NamedTuple):
    """One frame of a traceback. Its text is `file:line function`."""

    place: CodePlace
    line: int

    @property
    def origin(self) -> Origin:
        """Origin of the code."""
        return self.place.origin

    @property
    def package(self) -> str | None:
        """Name of the installed package. None if the file is not part of an installed package."""
        if self.place.origin is not Origin.PACKAGE:
            return None
        return self.place.path.partition("/")[0].removesuffix(".py")

    @override
    def __str__(self) -> str:
        return f"{self.place.path}:{self.line} {self.place.function}"


class TracebackFrames:
    """The frames of one error, without those of its cause. Each frame is read when it is needed.

    A long traceback has only its outermost and innermost frames.
    """

    __slots__ = ("_directory", "_inner", "_last", "_left_out", "_outer", "handler")

    def __init__(self, error: BaseException) -> None:
        self._outer: list[TracebackType] = []
        self._inner: deque[TracebackType] = deque(maxlen=MAX_INNER_FRAMES)
        count, trace = 0, error.__traceback__
        while trace is not None:
            (self._outer if count < MAX_OUTER_FRAMES else self._inner).append(trace)
            count, trace = count + 1, trace.tb_next
        self._left_out = count - len(self._outer) - len(self._inner)
        self._directory = _working_directory()
        place = blamed_handler(error)
        self.handler = None if place is None else self._handler_frame(place)
        """Definition of the handler that caused the error, if no code of the handler raised it."""
        syntax = self._syntax_frame(error) if isinstance(error, SyntaxError) else None
        self._last = syntax or self.handler

    def __iter__(self) -> Iterator[TracebackFrame]:
        """Yield the frames. The outermost frame is first."""
        yield from map(self._read, (*self._outer, *self._inner))
        if self._last is not None:
            yield self._last

    def __reversed__(self) -> Iterator[TracebackFrame]:
        """Yield the frames. The innermost frame is first."""
        if self._last is not None:
            yield self._last
        yield from map(self._read, reversed(self._inner))
        yield from map(self._read, reversed(self._outer))

    def lines(self) -> list[str]:
        """Return the frames as text. One line has the number of the frames that are left out."""
        lines = [str(frame) for frame in self]
        if self._left_out:
            lines.insert(len(self._outer), f"… {self._left_out} more")
        return lines

    def _read(self, trace: TracebackType) -> TracebackFrame:
        return _read_frame(trace.tb_frame, trace.tb_lineno, self._directory)

    def _handler_frame(self, place: HandlerPlace) -> TracebackFrame:
        found = _find_place(place.file, place.function, place.module, self._directory)
        return TracebackFrame(found, place.line)

    def _syntax_frame(self, error: SyntaxError) -> TracebackFrame | None:
        """Return the place of a syntax error in a module that could not be imported."""
        if not isinstance(error.filename, str) or not isinstance(error.lineno, int):
            return None
        # The name of a file that does not exist could be another text, even a value.
        if not os.path.isfile(error.filename):  # noqa: PTH113 - Path.is_file can raise an OSError
            return None
        place = _find_place(error.filename, "<module>", "", self._directory)
        return TracebackFrame(place, error.lineno)


def running_frame(frame: FrameType) -> TracebackFrame:
    """Return a frame that has not ended."""
    return _read_frame(frame, frame.f_lineno, _working_directory())


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - Path.cwd takes ten times as long
    except OSError:  # the working directory was deleted
        return ""


def _read_frame(frame: FrameType, line: int | None, directory: str) -> TracebackFrame:
    code, module = frame.f_code, frame.f_globals.get("__name__")
    place = _find_place(
        code.co_filename,
        code.co_qualname,
        module if isinstance(module, str) else "",
        directory,
    )
    # Python has no line number for some instructions that it adds itself.
    return TracebackFrame(place, line or code.co_firstlineno)


@lru_cache(maxsize=4096)  # a failure has the same frames again and again
def _find_place(filename: str, function: str, module: str, directory: str) -> CodePlace:
    """Return the origin of a function, and the texts to show.

    Args:
        filename: Name of the file as in the code object.
        function: Qualified name of the function.
        module: Name of the module that the code belongs to.
        directory: Working directory, or an empty text if it does not exist.
    """
    function = shorten_text(function.rpartition("<locals>.")[2], MAX_FUNCTION_LENGTH)
    if filename.startswith("<"):
        library = filename.startswith("<frozen ")
        origin = Origin.STANDARD_LIBRARY if library else Origin.GENERATED
        return CodePlace(origin, shorten_text(filename, MAX_PATH_LENGTH), function)
    absolute = os.path.normpath(Path(directory, filename))
    origin, path = _classify(absolute, module, directory)
    return CodePlace(origin, shorten_text(path.replace(os.sep, "/"), MAX_PATH_LENGTH), function)


def _classify(absolute: str, module: str, directory: str) -> tuple[Origin, str]:
    if inside := _relative(absolute, BUS):
        return Origin.BUS, f"bus/{inside}"
    slashes = absolute.replace(os.sep, "/")
    for site in SITES:
        _, found, inside = slashes.rpartition(site)
        if found:
            return Origin.PACKAGE, inside
    for folder in STANDARD_LIBRARY:
        if inside := _relative(absolute, folder):
            return Origin.STANDARD_LIBRARY, inside
    return (
        Origin.SERVICE,
        _relative(absolute, directory) or _relative_to_package(absolute, module) or absolute,
    )


def _relative(path: str, folder: str) -> str:
    """Return the path inside a folder. Return an empty text if the path is not in the folder.

    The root folder is the working directory of many containers. A path from there is not shorter,
    so the result is empty too.
    """
    start = folder.rstrip(os.sep) + os.sep
    return path[len(start) :] if start != os.sep and path.startswith(start) else ""


def _relative_to_package(path: str, module: str) -> str:
    """Return the path from the folder of the top-level package, or an empty text."""
    parts, names = Path(path).parts, module.split(".")
    for depth, stem in ((len(names), names), (len(names) + 1, [*names, "__init__"])):
        if [*parts[-depth:-1], Path(path).stem] == stem:
            return os.sep.join(parts[-depth:])  # noqa: PTH118 - a text that is shown
    return ""


def shorten_text(text: str, longest: int) -> str:
    """Return the end of a text as one line, at most `longest` characters."""
    text = one_line(text)
    return text if len(text) <= longest else f"…{text[1 - longest :]}"
