"""Shapes of the diagrams that `diagrams.py` and `overview_diagram.py` draw as SVG.

A diagram has dark lines on its own light background, so it is readable on every page.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Literal

__all__ = ["LINE", "Arrow", "Box", "svg"]

Kind = Literal["process", "exchange", "queue", "step", "ground", "note"]
FILLS: Mapping[Kind, tuple[str, str]] = {
    "process": ("#e3eef5", "#1f4e6b"),
    "exchange": ("#fbe9dd", "#b3541e"),
    "queue": ("#e4f1e2", "#3c7a35"),
    "step": ("#ffffff", "#1f4e6b"),
    "ground": ("#f7f8f9", "#c4ccd2"),
    "note": ("none", "none"),
}
LINE = 18  # distance between two lines of text
HEAD = (
    '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
    'orient="auto-start-reverse">'
)


@dataclass(frozen=True, kw_only=True)
class Box:
    """Shape with lines of text in its middle or at its top."""

    kind: Kind
    x: float
    y: float
    w: float
    h: float
    lines: tuple[str, ...] = ()
    at_top: bool = False

    def drawn(self) -> str:
        """Return the SVG of the shape and its text.

        The first line of a queue or exchange is its name.
        """
        fill, stroke = FILLS[self.kind]
        radius = {"exchange": self.h / 2, "process": 8, "ground": 10}.get(self.kind, 3)
        shape = (
            f'<rect x="{self.x}" y="{self.y}" width="{self.w}" height="{self.h}" rx="{radius}" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )
        if self.kind == "queue":
            bars = "".join(
                f"M{self.x + self.w - 7 * n} {self.y + 5}v{self.h - 10}" for n in (1, 2, 3)
            )
            shape += f'<path d="{bars}" stroke="{stroke}" opacity="0.5"/>'
        middle = self.x + (self.w - (21 if self.kind == "queue" else 0)) / 2
        top = (
            self.y + LINE + 2
            if self.at_top
            else self.y + self.h / 2 - LINE * (len(self.lines) - 1) / 2 + 4.5
        )
        weight = ' font-weight="600"' if self.at_top else ""
        texts = (
            f'<text x="{middle}" y="{top + LINE * place}"{weight}>{escape(line)}</text>'
            for place, line in enumerate(self.lines)
        )
        return shape + "".join(texts)


@dataclass(frozen=True, kw_only=True)
class Arrow:
    """Arrow along a path of points, with a label at the position `at`."""

    points: tuple[tuple[float, float], ...]
    word: str = ""
    at: tuple[float, float] = (0, 0)
    dashed: bool = False

    def drawn(self) -> str:
        """Return the SVG of the line, its head and its label."""
        way = " ".join(f"{x},{y}" for x, y in self.points)
        dashes = ' stroke-dasharray="5 4"' if self.dashed else ""
        line = (
            f'<polyline points="{way}" fill="none" stroke="#4a5560" stroke-width="1.4" '
            f'marker-end="url(#head)"{dashes}/>'
        )
        words = (
            f'<text class="word" x="{self.at[0]}" y="{self.at[1] + 16 * place}">'
            f"{escape(each)}</text>"
            for place, each in enumerate(self.word.split("\n"))
        )
        return line + ("".join(words) if self.word else "")


def svg(width: int, height: int, title: str, parts: Iterable[Box | Arrow]) -> str:
    """Return the content of an SVG file with these parts."""
    style = (
        'text{font:13px system-ui,"DejaVu Sans",sans-serif;fill:#1d2731;text-anchor:middle}'
        ".word{fill:#4a5560;font-size:12px}"
    )
    head = f'{HEAD}<path d="M0 0L8 4L0 8z" fill="#4a5560"/></marker>'
    view_box, size = f"0 0 {width} {height}", f'width="{width}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view_box}" {size} role="img">',
            f"<title>{escape(title)}</title><style>{style}</style><defs>{head}</defs>",
            f'<rect width="{width}" height="{height}" rx="10" fill="#ffffff"/>',
            *(part.drawn() for part in parts),
            "</svg>\n",
        ]
    )
