"""Frames of a traceback as text: file, line and function, with the origin of the code."""

import os
import sysconfig
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from typing_extensions import override

__all__ = ["Frame", "Frames", "Origin", "printable", "read_frames"]

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


class Frame(NamedTuple):
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


@dataclass(frozen=True, slots=True)
class Frames:
    """The outermost and the innermost frames of one error. The outermost frame is first."""

    outer: Sequence[Frame]
    left_out: int
    inner: Sequence[Frame]

    def __iter__(self) -> Iterator[Frame]:
        yield from self.outer
        yield from self.inner

    def innermost(self, matches: Callable[[Frame], bool]) -> Frame | None:
        """Return the innermost frame that matches, or None."""
        inwards = (*reversed(self.inner), *reversed(self.outer))
        return next((frame for frame in inwards if matches(frame)), None)

    def lines(self) -> list[str]:
        """Return the frames as text. One line has the number of the frames that are left out."""
        gap = [f"… {self.left_out} more"] if self.left_out else []
        return [*map(str, self.outer), *gap, *map(str, self.inner)]


def read_frames(error: BaseException) -> Frames:
    """Return the frames of an error, without those of its cause."""
    outer: list[TracebackType] = []
    inner: deque[TracebackType] = deque(maxlen=MAX_INNER_FRAMES)
    count, trace = 0, error.__traceback__
    while trace is not None:
        (outer if count < MAX_OUTER_FRAMES else inner).append(trace)
        count, trace = count + 1, trace.tb_next
    try:
        directory = str(Path.cwd())
    except OSError:  # the working directory was deleted
        directory = ""
    return Frames(
        outer=[_read_frame(trace, directory) for trace in outer],
        left_out=count - len(outer) - len(inner),
        inner=[_read_frame(trace, directory) for trace in inner],
    )


def _read_frame(trace: TracebackType, directory: str) -> Frame:
    frame = trace.tb_frame
    code, module = frame.f_code, frame.f_globals.get("__name__")
    place = _find_place(
        code.co_filename,
        code.co_qualname,
        module if isinstance(module, str) else "",
        directory,
    )
    # Python has no line number for some instructions that it adds itself.
    line: int | None = trace.tb_lineno
    return Frame(place, line or code.co_firstlineno)


@lru_cache(maxsize=4096)  # a failure has the same frames again and again
def _find_place(filename: str, function: str, module: str, directory: str) -> CodePlace:
    """Return the origin of a function, and the texts to show.

    Args:
        filename: Name of the file as in the code object.
        function: Qualified name of the function.
        module: Name of the module that the code belongs to.
        directory: Working directory, or an empty text if it does not exist.
    """
    function = printable(function.rpartition("<locals>.")[2], MAX_FUNCTION_LENGTH)
    if filename.startswith("<"):
        library = filename.startswith("<frozen ")
        origin = Origin.STANDARD_LIBRARY if library else Origin.GENERATED
        return CodePlace(origin, printable(filename, MAX_PATH_LENGTH), function)
    absolute = os.path.normpath(Path(directory, filename))
    origin, path = _classify(absolute, module, directory)
    return CodePlace(origin, printable(path.replace(os.sep, "/"), MAX_PATH_LENGTH), function)


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


def printable(text: str, longest: int) -> str:
    """Return the end of a text, at most `longest` characters. Replace control characters."""
    text = text if len(text) <= longest else f"…{text[1 - longest :]}"
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)
