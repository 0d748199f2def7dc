"""The pictures of `docs/explanation/resilience.md`, drawn from the figures of one run."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.resilience.chart import Line, Panel, chart
from benchmarks.resilience.experiments import BEFORE_SECONDS, OVERLOAD_SECONDS
from benchmarks.resilience.variants import VARIANTS

__all__ = ["FIGURES", "PICTURES", "pictures"]

# Colours that colour-blind readers can tell apart (Okabe and Ito, 2008), and dashes for print.
LOOKS: Mapping[str, tuple[str, str]] = {
    "none": ("#6b7680", "2 4"),
    "retries": ("#c1440e", "7 4"),
    "budget": ("#0072b2", ""),
    "breaker": ("#b07d00", "10 3 2 3"),
    "bulkhead": ("#a3477f", "4 3"),
    "shedding": ("#0072b2", ""),
    "all": ("#00795a", ""),
}
LOAD_PANELS = (
    ("At the caller: retries", ("none", "retries", "budget")),
    ("Each policy with retries", ("breaker", "bulkhead", "shedding", "all")),
)
RECOVERY = ("none", "retries", "budget", "all")
FIGURES = "resilience.json"
PICTURES = ("resilience-load.svg", "resilience-recovery.svg")


def pictures(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return the content of each SVG file, by file name."""
    load, recovery = PICTURES
    return {load: load_picture(figures), recovery: recovery_picture(figures)}


def line(name: str, points: Sequence[tuple[float, float]]) -> Line:
    """Return the curve of a set of policies."""
    colour, dashes = LOOKS[name]
    return Line(label=VARIANTS[name].label, colour=colour, dashes=dashes, points=points)


def load_picture(figures: Mapping[str, Any]) -> str:
    """Draw the goodput against the offered load."""
    loads: list[float] = figures["loads"]
    panels = [
        Panel(
            title=f"{title}: answered calls / capacity",
            x_label="offered load / capacity",
            x_ticks=(0, 0.5, 1, 1.5, 2, 2.5, 3),
            y_ticks=(0, 0.5, 1),
            lines=[
                line(name, list(zip(loads, figures["goodput"][name], strict=True)))
                for name in shown
            ],
        )
        for title, shown in LOAD_PANELS
    ]
    return chart("Answered calls against the offered load, with and without each policy", panels)


def recovery_picture(figures: Mapping[str, Any]) -> str:
    """Draw the goodput during an overload of 10 s, and after it."""
    ends = BEFORE_SECONDS + OVERLOAD_SECONDS
    panel = Panel(
        title="10 s of overload: answered calls / capacity",
        x_label="seconds (dark: three times the capacity is offered)",
        x_ticks=(0, 10, 20, 30, 40, 50, 60),
        y_ticks=(0, 0.5, 1, 1.5),
        lines=[line(name, list(enumerate(figures["overload"][name]))) for name in RECOVERY],
        marked=(BEFORE_SECONDS, ends),
    )
    return chart("Answered calls during an overload of 10 s and after it, by policy", [panel])
