"""The page about resilience has the order, the defaults and the figures of the code."""

import json
import re
from pathlib import Path
from typing import Any, cast

from bus.messaging.resilience.call_policy import DEFAULT_POLICY, BreakerPolicy
from bus.middleware.retry import DEFAULT_RETRIES
from bus.middleware.stacks import CLIENT
from bus.runtime.inbound import INBOUND
from tests.unit.middleware.test_stacks import EVERYTHING, names, policies

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/explanation/resilience.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "docs/explanation/architecture.md").read_text(encoding="utf-8")
FIGURES: dict[str, Any] = json.loads(
    (ROOT / "docs/explanation/resilience.json").read_text(encoding="utf-8")
)


def section(page: str, heading: str) -> str:
    return page.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def listed(text: str) -> list[str]:
    """Return the names at the begin of the points of a numbered list, in their order."""
    points = re.findall(r"^\d+\. ((?:`\w+`(?:, )?)+)", text, re.MULTILINE)
    return [name for point in points for name in re.findall(r"`(\w+)`", point)]


def test_the_page_has_the_layers_of_a_caller_in_their_order() -> None:
    stack = [*names(list(CLIENT)), *names(policies(EVERYTHING))]
    assert listed(section(PAGE, "At the caller")) == [
        *("client_spans", *stack),
        *("authorize", "encrypt", "sign"),
    ]


def test_the_page_has_the_stages_of_a_service_in_their_order() -> None:
    stages = [cast("Any", stage).__name__ for stage in INBOUND]
    shown = listed(section(PAGE, "At the service"))
    assert len(shown) == 6
    assert shown == [stage for stage in stages if stage in shown]


def test_the_page_of_the_architecture_has_the_same_policies_of_a_caller() -> None:
    shown = re.findall(r"^- \*\*(\w+)\*\* \(call\)", ARCHITECTURE, re.MULTILINE)
    assert shown == names(policies(EVERYTHING))


def test_the_page_has_the_defaults_of_the_policies() -> None:
    text, policy, breaker = section(PAGE, "Defaults"), DEFAULT_POLICY, BreakerPolicy()
    assert (policy.attempt_timeout, policy.hedge_after, breaker.slow_call) == (None, None, None)
    for value in (
        f"| {DEFAULT_RETRIES}, after an error",
        f"{policy.retry_budget} tokens for each success",
        f"{breaker.failure_rate:.0%} failures of at least {breaker.min_calls} calls in",
        f"in {breaker.window:g} s, or after {breaker.consecutive_failures} consecutive",
        f"stays open for {breaker.open_time:g} s, and up to {breaker.longest_open_time:g} s",
        f"{policy.max_in_flight:,} requests in flight and {policy.max_waiting:,} that wait",
    ):
        assert value.replace("%", " %") in text


def test_the_page_has_the_requests_for_each_call_to_a_failing_service() -> None:
    for row in FIGURES["sent for each call"].values():
        cells = (", ".join(f"{value:.2f}" for value in row[mode].values()) for mode in row)
        assert f"| {' | '.join(cells)} |" in PAGE, "python -m benchmarks.resilience changed them"
