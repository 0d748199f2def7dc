"""Line charts as SVG, readable at a width of 400 pixels.

The text stays text, and the file depends only on the points. A chart has its own light background,
as the other diagrams of the documents have, so it is readable on every page.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Line", "Panel", "chart"]

WIDTH, LEFT, RIGHT, TOP, PLOT_HEIGHT, BELOW, ROW = 480, 50, 16, 34, 170, 46, 21
GRID, INK = "#dde3e8", "#1d2731"
STYLE = (
    f'text{{font:14px system-ui,"DejaVu Sans",sans-serif;fill:{INK}}}'
    ".middle{text-anchor:middle}.end{text-anchor:end}.title{font-weight:600}"
)

Point = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve. Two curves of a chart differ in colour and in dashes."""

    label: str
    colour: str
    points: Sequence[Point]
    dashes: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One plot of a chart, with its legend below."""

    title: str
    x_label: str
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    lines: Sequence[Line]
    marked: Point | None = None
    """Interval of x that has a darker background."""

    @property
    def height(self) -> int:
        """Return the height with title and legend, in pixels."""
        return TOP + PLOT_HEIGHT + BELOW + ROW * ((len(self.lines) + 1) // 2) + 12

    def drawn(self, top: int) -> Iterator[str]:
        """Yield the SVG of the panel. Its upper edge is at `top`."""
        plot = Plot(top + TOP, self.x_ticks, self.y_ticks)
        yield text(LEFT - 34, top + 20, self.title, "title")
        if self.marked is not None:
            left, right = (plot.x(edge) for edge in self.marked)
            yield (
                f'<rect x="{left:g}" y="{plot.top}" width="{right - left:g}" '
                f'height="{PLOT_HEIGHT}" fill="#f3ece4"/>'
            )
        for tick in self.y_ticks:
            y = plot.y(tick)
            yield f'<path d="M{LEFT} {y:g}H{WIDTH - RIGHT}" stroke="{GRID}"/>'
            yield text(LEFT - 6, y + 5, f"{tick:g}", "end")
        for tick in self.x_ticks:
            yield text(plot.x(tick), plot.top + PLOT_HEIGHT + 18, f"{tick:g}", "middle")
        yield text((LEFT + WIDTH - RIGHT) / 2, plot.top + PLOT_HEIGHT + 37, self.x_label, "middle")
        for place, line in enumerate(self.lines):
            way = " ".join(f"{plot.x(x):.1f},{plot.y(y):.1f}" for x, y in line.points)
            yield stroke(line, f'<polyline points="{way}"')
            column, row = place % 2, place // 2
            x, y = LEFT - 34 + 224 * column, plot.top + PLOT_HEIGHT + BELOW + ROW * row + 10
            yield stroke(line, f'<path d="M{x} {y}h34"')
            yield text(x + 42, y + 5, line.label)


@dataclass(frozen=True, slots=True)
class Plot:
    """The scales of one plot."""

    top: int
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]

    def x(self, value: float) -> float:
        """Return the horizontal position of a value."""
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Return the vertical position of a value. A value above the last tick is at the top."""
        high = self.y_ticks[-1]
        return self.top + PLOT_HEIGHT * (1 - min(value, high) / high)


def stroke(line: Line, shape: str) -> str:
    """Return a shape with the colour and the dashes of a curve."""
    dashes = f' stroke-dasharray="{line.dashes}"' if line.dashes else ""
    return f'{shape} fill="none" stroke="{line.colour}" stroke-width="2.4"{dashes}/>'


def text(x: float, y: float, words: str, place: str = "") -> str:
    """Return a line of text."""
    kind = f' class="{place}"' if place else ""
    return f'<text x="{x:g}" y="{y:g}"{kind}>{escape(words)}</text>'


def chart(title: str, panels: Sequence[Panel]) -> str:
    """Return the content of an SVG file with these panels, one below the other."""
    height = sum(panel.height for panel in panels) + 8
    tops = [sum(panel.height for panel in panels[:place]) for place in range(len(panels))]
    view_box, size = f"0 0 {WIDTH} {height}", f'width="{WIDTH}" height="{height}"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view_box}" {size} role="img">',
            f"<title>{escape(title)}</title><style>{STYLE}</style>",
            f'<rect width="{WIDTH}" height="{height}" rx="10" fill="#ffffff"/>',
            *(
                part
                for panel, top in zip(panels, tops, strict=True)
                for part in panel.drawn(top + 4)
            ),
            "</svg>\n",
        ]
    )
