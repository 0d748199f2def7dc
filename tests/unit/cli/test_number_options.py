"""Numbers and times in options, and numbers in declarations: what is refused, and by which name."""

import json
import os
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest

from bus import ConfigurationError, ContractError, Event, RetryPolicy, Router, contract
from bus.cli import main
from tests.unit.ledger import CloseBooks

TIMED = {
    "call": ("call", "x.y.v1", "--timeout"),
    "publish": ("publish", "x.y.v1", "--timeout"),
    "submit": ("submit", "x.y.v1", "--timeout"),
    "queues": ("queues", "--watch"),
    "migrate": ("topology", "migrate", "m:r", "q", "--wait"),
    "health": ("health", "--timeout"),
    "replay": ("dead", "replay", "--rate"),
}


def exit_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("command", TIMED)
@pytest.mark.parametrize("value", ["nan", "inf", "1e400", "-1", "1e18", "true"])
def test_a_number_of_an_option_is_finite(
    command: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_of(*TIMED[command], value) == 2
    assert "Invalid value for" in capsys.readouterr().err


@pytest.mark.parametrize("lead", ["9" * 400 + "d", "99999999d", "nan", "-5m", "1.5", "infd"])
def test_a_duration_of_an_option_is_at_most_100_years(tmp_path: Path, lead: str) -> None:
    assert exit_of("keys", "rotate", "office", "--directory", str(tmp_path), "--lead", lead) == 2
    assert not [*tmp_path.iterdir()]


def test_a_key_that_is_revoked_since_before_1970_leaves_a_valid_key_set(tmp_path: Path) -> None:
    folder = ("--directory", str(tmp_path))
    assert exit_of("keys", "new", "office", *folder) == 0
    (key,) = json.loads((tmp_path / "jwks.json").read_text())["keys"]
    assert exit_of("keys", "revoke", key["kid"], "--since", "1960-01-01", *folder) == 0
    (key,) = json.loads((tmp_path / "jwks.json").read_text())["keys"]
    assert key["compromised_since"] == 0
    assert exit_of("keys", "list", *folder) == os.EX_OK


@pytest.mark.parametrize("version", [True, False, 1.5, 1.0, "1", None, 0, -1, 2**70, inf, nan])
def test_the_version_of_a_contract_is_a_whole_number(version: Any) -> None:
    with pytest.raises(ContractError, match="version"):

        @contract("ledger.closed", version=version)
        class Closed(Event):
            year: int


@pytest.mark.parametrize("value", [True, False, 1.5, "4", 0, -1, 2**70, nan, inf])
def test_a_count_of_a_declaration_is_a_whole_number(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="attempts must be a whole number"):
        RetryPolicy(attempts=value)
    with pytest.raises(ContractError, match="concurrency must be a whole number"):
        Router("ledger").job(CloseBooks, concurrency=value)


@pytest.mark.parametrize("value", [True, False, "4", -1, nan, inf, 10**400])
def test_a_time_of_a_declaration_is_a_finite_number(value: Any) -> None:
    for name in ("first_delay", "longest_delay", "total_time"):
        with pytest.raises(ConfigurationError, match=f"{name} must be a number"):
            RetryPolicy(**{name: value})
    with pytest.raises(ContractError, match="timeout must be a number of seconds"):
        Router("ledger").job(CloseBooks, timeout=value)
