"""The grammar of chaos plans, and the positions in its errors."""

import pytest

from bus.messaging.resilience.chaos_grammar import ChaosSyntaxError, parse_chaos
from bus.messaging.resilience.chaos_plan import ChaosPlan, ChaosRule, Fault

QUOTE = "billing.quote: "


def test_a_plan_has_the_faults_of_each_operation_its_duration_and_its_seed() -> None:
    plan = parse_chaos(
        " billing.quote : latency=200ms@10%, error=unavailable@5% ,drop-reply@0.5%;"
        "*: duplicate ; for=10m ; seed=42"
    )
    assert plan == ChaosPlan(
        (
            ChaosRule(
                "billing.quote",
                (
                    Fault(kind="latency", share=0.1, low=0.2, high=0.2),
                    Fault(kind="error", share=0.05, code="unavailable"),
                    Fault(kind="drop-reply", share=0.005),
                ),
            ),
            ChaosRule("*", (Fault(kind="duplicate"),)),
        ),
        seconds=600,
        seed=42,
    )


def test_a_latency_can_be_a_range() -> None:
    (fault,) = parse_chaos(f"{QUOTE}latency=50ms-1.5s").faults_of("billing.quote.v1")
    assert (fault.low, fault.high, fault.share) == (0.05, 1.5, 1)


@pytest.mark.parametrize(
    "text",
    ["a.b: latency=50ms-1500ms@10%", "a.b.v2: error=internal@0.5%, drop-reply; *: duplicate@2%"],
)
def test_a_plan_as_text_is_the_same_plan(text: str) -> None:
    plan = parse_chaos(text)
    assert (str(plan), parse_chaos(str(plan))) == (text, plan)


@pytest.mark.parametrize(
    ("target", "is_hit"),
    [
        ("*", True),
        ("billing.quote", True),
        ("billing.quote.v2", True),
        ("billing.quote.v1", False),
        ("billing.quotes", False),
        ("billing.invoice", False),
    ],
)
def test_a_target_is_every_operation_one_operation_or_one_version(
    target: str, is_hit: bool
) -> None:
    assert parse_chaos(f"{target}: duplicate").matches("billing.quote.v2") is is_hit


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("", 0, "a colon"),
        ("for=10m", 0, "no faults"),
        ("billing.quote", 0, "a colon"),
        ("Billing: duplicate", 0, "operation is not valid"),
        ("billing: duplicate", 0, "operation is not valid"),
        (f"{QUOTE}", 14, "a fault must stand here"),
        (f"{QUOTE}lateny=200ms", 15, "a fault must stand here"),
        (f"{QUOTE}latency", 15, "a fault must stand here"),
        (f"{QUOTE}duplicate=2", 15, "a fault must stand here"),
        (f"{QUOTE}duplicate,", 25, "a fault must stand here"),
        (f"{QUOTE}latency=200", 23, "a time above 0"),
        (f"{QUOTE}latency=0ms", 23, "a time above 0"),
        (f"{QUOTE}latency=-5ms", 23, "a time above 0"),
        (f"{QUOTE}latency=11m", 23, "up to 600 s"),
        (f"{QUOTE}latency=2s-1s", 23, "longer than the second"),
        (f"{QUOTE}latency=1s-", 26, "a time above 0"),
        (f"{QUOTE}error=broken", 21, "must be one of aborted, already_exists"),
        (f"{QUOTE}error=process_lost", 21, "must be one of"),
        (f"{QUOTE}duplicate@", 25, "a share above 0%"),
        (f"{QUOTE}duplicate@5", 25, "a share above 0%"),
        (f"{QUOTE}duplicate@0%", 25, "a share above 0%"),
        (f"{QUOTE}duplicate@101%", 25, "up to 100%"),
        (f"{QUOTE}duplicate@nan%", 25, "a share above 0%"),
        (f"{QUOTE}duplicate; for=2h", 30, "up to 3600 s"),
        (f"{QUOTE}duplicate; for=1m; for=1m", 34, "second for="),
        (f"{QUOTE}duplicate; seed=x", 31, "a whole number"),
        (f"{QUOTE}duplicate; seed=1;seed=2", 33, "second seed="),
        (f"{QUOTE}duplicate;", 25, "a colon"),
        (f"{QUOTE}{'duplicate,' * 300}", 2000, "more than 2000 characters"),
    ],
)
def test_an_error_has_the_position_and_what_can_stand_there(
    text: str, position: int, problem: str
) -> None:
    with pytest.raises(ChaosSyntaxError, match=problem) as caught:
        parse_chaos(text)
    assert caught.value.position == position
    assert str(caught.value).startswith(f"character {position + 1}: ")
