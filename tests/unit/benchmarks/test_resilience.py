"""The simulator of the policies: what overloads and failures do to callers and their service."""

import json
from pathlib import Path
from statistics import mean

import pytest

from benchmarks.resilience.experiments import (
    RATES,
    amplification,
    goodput,
    overload,
)
from benchmarks.resilience.pictures import FIGURES, pictures
from benchmarks.resilience.server import Mode
from benchmarks.resilience.variants import VARIANTS

FOLDER = Path(__file__).parents[3] / "docs/explanation"
SHOWN = json.loads((FOLDER / FIGURES).read_text(encoding="utf-8"))
NORMAL = 0.7
"""The load after the overload, as a part of the capacity."""
OVERLOAD_ENDS = 15
AGAIN = "draw it anew: python -m benchmarks.resilience"


def test_without_a_budget_callers_stay_down_after_an_overload_that_has_ended() -> None:
    after = overload(VARIANTS["retries"], after=12)[OVERLOAD_ENDS:]
    assert max(after) < 0.1 * NORMAL


def test_with_a_budget_callers_recover_within_5_s_of_the_end_of_an_overload() -> None:
    found = overload(VARIANTS["budget"], after=12)
    before, during = found[:5], found[8:OVERLOAD_ENDS]
    assert mean(before) == pytest.approx(NORMAL, abs=0.05)
    assert mean(during) < 0.3
    assert min(found[OVERLOAD_ENDS + 5 :]) > 0.8 * NORMAL


# A budget counts both modes alike, so the many calls of the highest rate run once.
@pytest.mark.parametrize(
    ("mode", "rate"), [*(("unavailable", rate) for rate in RATES), ("hangs", RATES[0])]
)
def test_callers_of_a_failing_service_send_at_most_1_25_times_the_calls(
    mode: Mode, rate: float
) -> None:
    assert 1 < amplification(VARIANTS["budget"], mode, rate=rate) <= 1.25


def test_without_a_budget_callers_of_a_failing_service_send_three_times_the_calls() -> None:
    found = amplification(VARIANTS["retries"], "unavailable", rate=1.0)
    assert found == pytest.approx(3, abs=0.05)


def test_the_simulator_gives_the_same_figures_each_time() -> None:
    first, second = (amplification(VARIANTS["all"], "hangs", rate=0.1) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["breaker", "all"])
def test_a_curve_of_the_page_is_that_of_this_code(name: str) -> None:
    place = SHOWN["loads"].index(1.25)
    shown = SHOWN["goodput"][name][place]
    assert goodput(VARIANTS[name], 1.25) == pytest.approx(shown, abs=0.03), AGAIN


@pytest.mark.parametrize("name", pictures(SHOWN))
def test_a_picture_shows_the_figures_beside_it(name: str) -> None:
    assert (FOLDER / name).read_text(encoding="utf-8") == pictures(SHOWN)[name], AGAIN
