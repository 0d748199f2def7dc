"""Run all experiments, and write their figures and pictures.

usage: python -m benchmarks.resilience [FOLDER]      default: docs/explanation
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.resilience.experiments import (
    LOADS,
    MODES,
    RATES,
    SHOWN_SECONDS,
    amplification,
    goodput,
    overload,
)
from benchmarks.resilience.pictures import FIGURES, pictures
from benchmarks.resilience.variants import VARIANTS

ROOT = Path(__file__).parents[2]
DIGITS = 3


def figures() -> dict[str, Any]:
    """Return the figures of all experiments."""
    return {
        "loads": LOADS,
        "goodput": {
            name: [round(goodput(variant, load), DIGITS) for load in LOADS]
            for name, variant in VARIANTS.items()
        },
        "overload": {
            name: [round(value, DIGITS) for value in overload(variant, after=SHOWN_SECONDS)]
            for name, variant in VARIANTS.items()
        },
        "sent for each call": {
            name: {
                mode: {
                    f"{rate:g}": round(amplification(VARIANTS[name], mode, rate=rate), DIGITS)
                    for rate in RATES
                }
                for mode in MODES
            }
            for name in ("retries", "budget", "all")
        },
    }


def main(arguments: Sequence[str]) -> None:
    """Write the figures as JSON, and the pictures as SVG."""
    folder = Path(arguments[0]) if arguments else ROOT / "docs/explanation"
    began = time.perf_counter()
    found = figures()
    (folder / FIGURES).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for name, content in pictures(found).items():
        (folder / name).write_text(content, encoding="utf-8")
    print(f"{folder}: the figures and the pictures, in {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
