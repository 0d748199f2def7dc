"""The chart: a panel for each workload, a bar for each peer, the range of rounds as a whisker."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.conditions import TITLES
from benchmarks.peers import (
    FEW_HANDLERS,
    NO_STORE,
    ON_FASTSTREAM,
    ON_POSTGRES,
    ON_SQLITE,
    OURS,
    PLAIN,
    SIGNED,
)
from benchmarks.report import Works, value

__all__ = ["draw"]

SHOWN = ("rpc100", "publish", "consume", "fanout5", "durable")
VARIANTS = (OURS, SIGNED, PLAIN, ON_FASTSTREAM, ON_POSTGRES, FEW_HANDLERS, ON_SQLITE, NO_STORE)
INK, OWN, OTHER = "#24292f", "#0b6e4f", "#9aa5b1"


def draw(works: Works, names: Mapping[str, str], path: Path) -> None:
    """Write the SVG; workloads that were not measured are left out."""
    shown = [work for work in SHOWN if works.get(work)]
    if not shown:
        return
    heights = [len(works[work]) + 1 for work in shown]
    # The same figures must give the same file: it has no date, and its ids are fixed. The ground is
    # white, because the text is dark and the page may be dark too.
    with mpl.rc_context(
        {
            "svg.hashsalt": "trunkline",
            "font.size": 9,
            "text.color": INK,
            "xtick.color": INK,
            "ytick.color": INK,
        }
    ):
        figure = Figure(
            figsize=(8, 0.36 * sum(heights) + 0.5), layout="constrained", facecolor="white"
        )
        panels = figure.subplots(len(shown), 1, squeeze=False, height_ratios=heights)[:, 0]
        for panel, work in zip(panels, shown, strict=True):
            bars(panel, works, work, names)
        figure.savefig(path, format="svg", metadata={"Date": None})
    path.write_text(
        "\n".join(line.rstrip() for line in path.read_text(encoding="utf-8").splitlines()) + "\n",
        encoding="utf-8",
    )


def bars(panel: Any, works: Works, work: str, names: Mapping[str, str]) -> None:
    """Draw one panel, with the longest bar on top."""
    found = {peer: spread for peer in works[work] if (spread := value(works, work, peer))}
    order = sorted(found, key=lambda peer: found[peer].median)
    medians = [found[peer].median for peer in order]
    low = [found[peer].median - found[peer].low for peer in order]
    high = [found[peer].high - found[peer].median for peer in order]
    colours = [OWN if peer in VARIANTS else OTHER for peer in order]
    panel.barh(
        [names[peer] for peer in order],
        medians,
        xerr=[low, high],
        color=colours,
        ecolor=INK,
        error_kw={"linewidth": 0.8},
    )
    most = max(found[peer].high for peer in order)
    for row, peer in enumerate(order):
        panel.text(found[peer].high + most * 0.015, row, f"{found[peer].median:,.0f}", va="center")
    panel.set_xlim(0, most * 1.13)
    panel.set_title(f"{TITLES[work]}: messages a second", loc="left", fontsize=10)
    panel.xaxis.set_visible(False)
    panel.tick_params(left=False)
    for side in panel.spines.values():
        side.set_visible(False)
