import re
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from math import inf, nan
from typing import Any

import pytest

from bus.contracts.limits import MAX_SECONDS, check_count, check_seconds
from bus.errors import ConfigurationError, ContractError

SECRET = "Eleonora Quist"


@pytest.mark.parametrize("seconds", [1, 0.001, 1e7, MAX_SECONDS, Fraction(1, 2)])
def test_a_finite_number_of_seconds_is_taken(seconds: Any) -> None:
    assert check_seconds(seconds, "timeout", "ledger.add.v1") == seconds


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (inf, "inf"),
        (-inf, "-inf"),
        (nan, "nan"),
        (-1, "-1"),
        (0, "0"),
        (1e300, "1e+300"),
        (10**400, "a larger number"),
        (True, "True"),
        (None, "None"),
        (SECRET, "a value of type str"),
        (Decimal(1), "a value of type Decimal"),
        (timedelta(seconds=1), "a value of type timedelta"),
    ],
)
def test_other_seconds_are_refused_with_the_name_of_the_argument(wrong: Any, said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        check_seconds(wrong, "timeout", "ledger.add.v1")
    text = str(refused.value)
    assert text.startswith("ledger.add.v1: timeout must be a number of seconds above 0")
    assert f", not {said}. " in text
    assert SECRET not in text


def test_a_duration_of_python_is_refused_with_the_way_to_write_it() -> None:
    with pytest.raises(ConfigurationError, match=r"total_seconds\(\)"):
        check_seconds(timedelta(seconds=1), "timeout", "ledger.add.v1")


def test_zero_seconds_are_taken_only_where_they_have_a_meaning() -> None:
    assert check_seconds(0, "timeout", "ledger.add.v1", shortest=0) == 0
    with pytest.raises(ConfigurationError, match="from 0 to 60, not -1"):
        check_seconds(-1, "timeout", "ledger.add.v1", shortest=0, longest=60)


@pytest.mark.parametrize("wrong", [0, 0.5, -1, 61, nan, "3"])
def test_the_error_about_seconds_states_the_whole_range(wrong: Any) -> None:
    assert check_seconds(1, "wait", "ledger.add.v1", shortest=1) == 1
    with pytest.raises(ConfigurationError, match="number of seconds from 1 to 60, not "):
        check_seconds(wrong, "wait", "ledger.add.v1", shortest=1, longest=60)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, 4.0, True, "4", nan, inf, 2**31, None])
def test_only_a_whole_number_is_a_count(wrong: Any) -> None:
    assert check_count(4, "attempts", "RetryPolicy") == 4
    with pytest.raises(ContractError, match="RetryPolicy: attempts must be a whole number"):
        check_count(wrong, "attempts", "RetryPolicy", error=ContractError)


@pytest.mark.parametrize(("wrong", "said"), [(2.0, "2.0"), (1.5, "1.5"), (-3.0, "-3.0"), (0, "0")])
def test_a_number_that_is_not_whole_looks_like_one(wrong: float, said: str) -> None:
    with pytest.raises(ConfigurationError, match=f", not {re.escape(said)}\\. "):
        check_count(wrong, "attempts", "RetryPolicy")
