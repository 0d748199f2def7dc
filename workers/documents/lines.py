"""Text of a section as one object that ReportLab places on pages, in time linear in the text.

A ReportLab `Paragraph` measures the rest of its text again on each page. With 200,000 emoji, each
shown as its code point, that took 124 s.
"""

import re
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from reportlab.lib.styles import ParagraphStyle
from reportlab.pdfbase import pdfmetrics
from reportlab.platypus import Flowable
from typing_extensions import override

__all__ = ["Line", "Lines", "wrapped"]

SPACES = re.compile(r"[^\S\u00a0\u202f\u2007]+")
"""Space between two words, at which a line may be broken. No-break spaces are not included."""
MIN_LINES = 2
"""Minimum number of lines of a text on a page, before and after a page break."""


@dataclass(frozen=True, slots=True)
class Line:
    """Line of a page."""

    text: str
    gap: float = 0
    """Space below the line in points."""


class Lines(Flowable):
    """Lines of text that are already wrapped. ReportLab divides them between pages."""

    def __init__(self, lines: list[Line], style: ParagraphStyle, *, counted: bool = False) -> None:
        """Initialise the text. If it is only `counted`, it takes its place and is not drawn."""
        super().__init__()
        self._lines = lines
        self._style = style
        self._counted = counted
        self._ends = list(accumulate(style.leading + line.gap for line in lines))
        """Distance of the end of each line from the beginning of the text, in points."""
        self._first, self._last = 0, len(lines)

    @override
    def wrap(self, width: float, _height: float) -> tuple[float, float]:
        """Return the width and the height of the text in points."""
        self.width, self.height = width, self._height(self._last)
        return self.width, self.height

    @override
    def split(self, _width: float, height: float) -> list[Flowable]:
        """Return the part of the text that fits into `height` points, and the rest.

        The list is empty if the text must begin on the next page.
        """
        top = self._ends[self._first - 1] if self._first else 0.0
        # The gap below the last line of a page does not have to fit.
        cut = bisect_right(self._ends, height + top, self._first, self._last)
        if cut < self._last and self._height(cut + 1) <= height:
            cut += 1
        if 0 < self._last - cut < MIN_LINES:
            cut = self._last - MIN_LINES
        if cut - self._first < min(MIN_LINES, self._last - self._first):
            return []
        return [self._part(self._first, cut), self._part(cut, self._last)]

    def draw(self) -> None:
        """Draw the lines on the current page."""
        if self._counted:
            return
        style, canvas = self._style, self.canv
        ascent = pdfmetrics.getAscentDescent(style.fontName, style.fontSize)[0]
        text = canvas.beginText(0, self.height - ascent)
        text.setFont(style.fontName, style.fontSize, style.leading)
        text.setFillColor(style.textColor)
        for line in self._lines[self._first : self._last]:
            text.textLine(line.text)
            if line.gap:
                text.moveCursor(0, line.gap)
        canvas.drawText(text)

    @override
    def getSpaceAfter(self) -> float:
        """Return the space below the last line in points."""
        return self._lines[self._last - 1].gap

    def _height(self, last: int) -> float:
        """Return the height of the lines before `last`, without the gap below them."""
        top = self._ends[self._first - 1] if self._first else 0.0
        return self._ends[last - 1] - top - self._lines[last - 1].gap if last > self._first else 0.0

    def _part(self, first: int, last: int) -> "Lines":
        # The parts share the list of lines, so the time of all divisions is linear. Do not copy
        # ReportLab's attributes: with its `_postponed`, a part would be taken for too large.
        part = Lines([], self._style, counted=self._counted)
        part._lines, part._ends = self._lines, self._ends
        part._first, part._last = first, last
        return part


def wrapped(text: str, style: ParagraphStyle, width: float) -> list[str]:
    """Return the text as lines that fit into `width` points.

    A word that is wider than a line is divided at any character.
    """
    face: Any = pdfmetrics.getFont(style.fontName).face  # type: ignore[attr-defined]  # a TTFont
    scale = style.fontSize / 1000
    sizes = {c: face.charWidths.get(ord(c), face.defaultWidth) * scale for c in {*text, " "}}
    lines: list[str] = []
    words: list[str] = []
    room = width
    for word in SPACES.split(text.strip(" ")):
        size = sum(map(sizes.__getitem__, word))
        space = sizes[" "] if words else 0.0
        if size + space <= room:
            words.append(word)
            room -= size + space
            continue
        if size <= width:
            lines.append(" ".join(words))
            words, room = [word], width - size
            continue
        first, *others = _divided(word, sizes, room - space, width)
        lines.append(" ".join([*words, first]) if first else " ".join(words))
        lines += others[:-1]
        words, room = [others[-1]], width - sum(map(sizes.__getitem__, others[-1]))
    return [*lines, " ".join(words)]


def _divided(word: str, sizes: dict[str, float], first: float, width: float) -> list[str]:
    """Return the parts of a word. The first part fits into `first` points, and may be empty."""
    parts: list[str] = []
    start, room = 0, first
    for place, character in enumerate(word):
        size = sizes[character]
        if size > room and (place > start or not parts):
            parts.append(word[start:place])
            start, room = place, width
        room -= size
    return [*parts, word[start:]]
