import re
from math import inf, nan
from typing import Any

import pytest

from bus.contracts.retry_policy import MAX_ATTEMPTS, MAX_DELAY_SECONDS, RetryPolicy
from bus.errors import ConfigurationError
from bus.messaging.settlement import MoveToDeadLetters, decide, delay_after
from bus.messaging.topology.names import RETRY_DELAYS, retry_delay_for

SECRET = "Eleonora Quist"


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        *(("attempts", wrong) for wrong in (0, -1, 1.5, 2.0, True, "3", None, MAX_ATTEMPTS + 1)),
        *(
            (field, wrong)
            for field in ("first_delay", "longest_delay")
            for wrong in (-1, nan, inf, True, SECRET, None, MAX_DELAY_SECONDS + 1)
        ),
        *(("factor", wrong) for wrong in (0.5, 0, -1, nan, inf, True, SECRET, None)),
        *(("total_time", wrong) for wrong in (0, -1, nan, inf, True, SECRET)),
        ("delays", 5),
        ("delays", SECRET),
        ("delays", None),
        *(("delays[1]", (1, wrong)) for wrong in (-1, nan, inf, True, SECRET, None, 86_401)),
        *(("permanent", wrong) for wrong in (SECRET, None, ValueError("x"), 1)),
        *(("permanent[0]", (wrong,)) for wrong in (SECRET, int, ValueError(SECRET), (KeyError,))),
    ],
)
def test_every_value_of_a_retry_policy_is_checked_and_named_when_it_is_declared(
    field: str, wrong: Any
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RetryPolicy(**{field.partition("[")[0]: wrong})
    assert str(refused.value).startswith(f"RetryPolicy: {field} must be ")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "permanent", [(KeyError, OSError), [KeyError, OSError], {KeyError, OSError}]
)
def test_permanent_errors_may_be_listed_in_any_order_and_container(permanent: Any) -> None:
    policy = RetryPolicy(permanent=permanent)
    assert set(policy.permanent) == {KeyError, OSError}
    assert hash(policy)
    assert decide(KeyError(), 1, policy) == MoveToDeadLetters(code="internal", reason="KeyError")


def test_one_class_of_permanent_errors_needs_no_tuple() -> None:
    single: Any = KeyError
    assert RetryPolicy(permanent=single).permanent == (KeyError,)


def test_a_list_of_delays_is_the_tuple_of_these_delays() -> None:
    delays: Any = [5, 600.5]
    policy = RetryPolicy(delays=delays)
    assert (policy.delays, policy.attempts) == ((5, 600.5), 3)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"first_delay": 5000}, "longest_delay (3600 s), not 5000. Write longest_delay=5000"),
        ({"first_delay": 600.5, "longest_delay": 30}, "(30 s), not 600.5. Write longest_delay="),
        ({"first_delay": 2, "longest_delay": 0}, "(0 s), not 2. Write longest_delay=2"),
    ],
)
def test_a_first_delay_is_not_cut_without_a_word_by_the_longest_delay(
    options: dict[str, Any], shown: str
) -> None:
    with pytest.raises(ConfigurationError) as refused:
        RetryPolicy(attempts=3, **options)
    assert str(refused.value).startswith("RetryPolicy: first_delay must be at most ")
    assert shown in str(refused.value)


def test_a_first_delay_up_to_the_longest_delay_is_kept() -> None:
    long = RetryPolicy(attempts=3, first_delay=5000, longest_delay=5000)
    assert [delay_after(attempt, long) for attempt in (1, 2)] == [5000, 5000]
    # The shortest retry tier waits 1 s, so a shorter longest delay shortens nothing.
    assert RetryPolicy(longest_delay=0).longest_delay == 0
    assert RetryPolicy(delays=(5000,), first_delay=5000).delays == (5000,)


def test_a_policy_may_wait_a_day_and_not_wait_at_all() -> None:
    assert RetryPolicy(delays=(0, MAX_DELAY_SECONDS)).attempts == 3
    policy = RetryPolicy(longest_delay=MAX_DELAY_SECONDS, first_delay=0, attempts=MAX_ATTEMPTS)
    assert policy.longest_delay == MAX_DELAY_SECONDS


def test_the_waits_in_the_docstring_of_the_retry_policy_are_true() -> None:
    examples = re.findall(
        r">>> \w+ = (.+?)  #.*waits (.+) s$", RetryPolicy.__doc__ or "", re.MULTILINE
    )
    assert len(examples) == 2
    for code, waits in examples:
        policy = eval(code, {"RetryPolicy": RetryPolicy})
        delays = [delay_after(attempt, policy) for attempt in range(1, policy.attempts)]
        tiers = [RETRY_DELAYS[retry_delay_for(delay)] for delay in delays]
        assert tiers == [int(wait) for wait in re.findall(r"\d+", waits)]
