"""Wrong values of the policies for calls: each key, each wrong value, and each source."""

import os
from collections.abc import Callable
from datetime import timedelta
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import BaseSettings, SettingsConfigDict

from bus import Bus, ServiceConfig, ServiceDefaults
from bus.errors import ConfigurationError
from bus.settings import load_settings
from bus.settings.service_defaults import POLICY_KEYS
from bus.settings.service_file import read_services_file
from bus.settings.service_variables import read_variables
from bus.settings.value_rules import POLICY_RULES

SECRET = "hunter2"
Write = Callable[[str], Path]
DAY = 86_400
SECONDS = f"a number of seconds above 0 and up to {DAY}"
SECONDS_WRONG: list[Any] = [0, 0.0, -1, -0.5, DAY + 1, 10**400]
RATE, RATE_WRONG = "a number above 0 and up to 1", [0, -0.1, 1.01, 50]
NUMBERS_WRONG: list[Any] = [nan, inf, -inf, True, False, SECRET, "OFF", "on"]
"""Values that no key with a number accepts."""
ALLOWED: dict[str, tuple[str, list[Any]]] = {
    "attempt_timeout": (f"{SECONDS}, or off", SECONDS_WRONG),
    "retries": ("a whole number from 0 to 1000", [-1, 1001, 1.5, "off"]),
    "retry_budget": ("a number from 0 to 1, or off", [-0.1, 1.01, 20]),
    "breaker": ("on or off", [0, 1, "ON", "of", "true", "maybe"]),
    "breaker_failure_rate": (RATE, [*RATE_WRONG, "off"]),
    "breaker_min_calls": ("a whole number from 1 to 1000000", [0, -1, 1_000_001, 2.5, "off"]),
    "breaker_window": ("a number of seconds above 0 and up to 3600", [0, -1, 3601, "off"]),
    "breaker_consecutive_failures": (
        "a whole number from 1 to 1000000, or off",
        [0, -1, 1_000_001, 2.5],
    ),
    "breaker_slow_call": (f"{SECONDS}, or off", SECONDS_WRONG),
    "breaker_slow_rate": (RATE, [*RATE_WRONG, "off"]),
    "breaker_open_time": (SECONDS, [*SECONDS_WRONG, "off"]),
    "breaker_longest_open_time": (SECONDS, [*SECONDS_WRONG, "off"]),
    "breaker_open_growth": ("a number from 1 to 100", [0, 0.9, -1, 101, "off"]),
    "breaker_successes": ("a whole number from 1 to 1000000", [0, -1, 1_000_001, 1.5, "off"]),
    "max_in_flight": ("a whole number from 1 to 1000000, or off", [0, -1, 1_000_001, 1.5]),
    "max_waiting": ("a whole number from 0 to 1000000", [-1, 1_000_001, 1.5, "off"]),
    "hedge_after": (f"{SECONDS}, or off", SECONDS_WRONG),
    "cache": ("on or off", [0, 1, "ON", "60"]),
}
"""What each key allows, and its wrong values."""
SWITCHES = {"breaker", "cache"}
WRONG_TYPES: list[Any] = [[], {}, b"1", timedelta(seconds=1), 1j]
"""Values that only code can pass."""


def wrong_values(key: str) -> list[Any]:
    common = [nan, True, False, SECRET] if key in SWITCHES else NUMBERS_WRONG
    return [*ALLOWED[key][1], *common]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BUS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that writes the services file, and sets its variable."""

    def write_file(text: str) -> Path:
        path = tmp_path / "services.toml"
        path.write_text(text)
        monkeypatch.setenv("BUS_SERVICES_FILE", str(path))
        return path

    return write_file


def fault(**overrides: object) -> str:
    """Return the text of the error with which the settings refuse their sources."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**overrides)
    return str(caught.value).removeprefix("settings: ")


def rule(key: str) -> str:
    """Return the text about a wrong value. It is the same for each source."""
    return f"must be {ALLOWED[key][0]}. {POLICY_RULES[key].advice}"


def toml(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)


def test_seconds_as_the_value_of_cache_are_referred_to_the_contract() -> None:
    (found,) = read_variables({"BUS_SERVICES__LAB__CACHE": "30"}).faults
    assert found == (
        'BUS_SERVICES__LAB__CACHE: must be on or off. Write the text "off" to keep no reply. The '
        "seconds are an option of the contract, such as @contract(…, cache=30)"
    )


def test_every_key_has_wrong_values_in_these_tests() -> None:
    assert tuple(ALLOWED) == POLICY_KEYS


# --- One value ---


@pytest.mark.parametrize("key", POLICY_KEYS)
def test_a_wrong_value_in_code_names_the_key_and_what_is_allowed(key: str) -> None:
    for value in [*wrong_values(key), *WRONG_TYPES]:
        given: dict[str, Any] = {key: value}
        with pytest.raises(ConfigurationError) as caught:
            ServiceConfig("billing", **given)
        assert str(caught.value) == f"ServiceConfig('billing').{key}: {rule(key)}."
        with pytest.raises(ConfigurationError) as caught:
            ServiceDefaults(**given)
        assert str(caught.value) == f"ServiceDefaults.{key}: {rule(key)}."


@pytest.mark.parametrize("key", POLICY_KEYS)
def test_a_wrong_variable_names_itself_and_what_is_allowed(key: str) -> None:
    names = [f"BUS_SERVICES__BILLING__{key.upper()}", f"BUS_SERVICE_DEFAULTS__{key.upper()}"]
    for value in wrong_values(key):
        found = read_variables(dict.fromkeys(names, str(value)))
        assert found.faults == [f"{name}: {rule(key)}" for name in names]


@pytest.mark.parametrize("key", POLICY_KEYS)
def test_a_wrong_value_of_the_file_is_named_with_its_line(key: str, tmp_path: Path) -> None:
    path = tmp_path / "services.toml"
    for value in wrong_values(key):
        line = f"{key} = {toml(value)}"
        path.write_text(f"[services.billing]\n\n{line}\n\n[defaults]\n{line}\n")
        (found,) = read_services_file(path).faults
        assert found == (
            f"BUS_SERVICES_FILE: {path}:3: services.billing.{key}: {rule(key)}; "
            f"{path}:6: defaults.{key}: {rule(key)}"
        )


def test_the_settings_report_the_faults_of_all_sources(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("[defaults]\nmax_waiting = -1\n")
    monkeypatch.setenv("BUS_SERVICES__BILLING__BREAKER_WINDOW", "0")
    assert fault() == (
        f"BUS_SERVICES__BILLING__BREAKER_WINDOW: {rule('breaker_window')}; "
        f"BUS_SERVICES_FILE: {path}:2: defaults.max_waiting: {rule('max_waiting')}"
    )


def test_a_wrong_policy_fails_when_the_bus_is_created(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_AUTH", "off")
    monkeypatch.setenv("BUS_SERVICE_DEFAULTS__BREAKER_MIN_CALLS", "0")
    with pytest.raises(ConfigurationError, match="BUS_SERVICE_DEFAULTS__BREAKER_MIN_CALLS: must"):
        Bus("shop")


class Till(BaseSettings):
    """Settings of a user's program, with nested fields that begin as those of a service."""

    model_config = SettingsConfigDict(env_prefix="BUS_SERVICE_", env_nested_delimiter="__")
    till: dict[str, int] = {}


# --- Unknown keys ---


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (
            "BUS_SERVICES__BILLING__ATTEMPT_TIMEUOT",
            (
                "ATTEMPT_TIMEUOT is not a key of a service; did you mean 'ATTEMPT_TIMEOUT'? "
                "Correct or remove the variable"
            ),
        ),
        (
            "BUS_SERVICE_DEFAULTS__RETRYS",
            (
                "RETRYS is not a key of the defaults; did you mean 'RETRIES'? Correct or remove "
                "the variable"
            ),
        ),
        (
            "BUS_SERVICE_DEFAULTS__COLOUR",
            (
                f"COLOUR is not a key of the defaults ({', '.join(POLICY_KEYS).upper()}). Correct "
                "or remove the variable"
            ),
        ),
        (
            "BUS_SERVICE_DEFAULTS__BREAKER_FAILURES",
            (
                "BREAKER_FAILURES is not a key of the defaults; did you mean "
                "'BREAKER_CONSECUTIVE_FAILURES' or 'BREAKER_FAILURE_RATE'? Correct or remove the "
                "variable"
            ),
        ),
        (
            "BUS_SERVICE_DEFAULTS__OPEN_TIME",
            (
                "OPEN_TIME is not a key of the defaults; did you mean 'BREAKER_OPEN_TIME' or "
                "'BREAKER_LONGEST_OPEN_TIME'? Correct or remove the variable"
            ),
        ),
        (
            "BUS_SERVICE_DEFAULTS__CRITICALITY",
            (
                "criticality is an option of the contract. Write criticality= in @contract(…) "
                "instead"
            ),
        ),
        (
            "BUS_SERVICE_DEFAULTS__TIMEOUT",
            "the timeout of all services is BUS_REQUEST_TIMEOUT. Set that variable instead",
        ),
        (
            "BUS_SERVICE_DEFAULTS__BASE_URL",
            "each service has its own address. Set base_url of a service",
        ),
        (
            "BUS_SERVICE_DEFAULTS",
            (
                "each value has one variable. Write BUS_SERVICE_DEFAULTS__RETRIES=3, or set "
                "BUS_SERVICES_FILE"
            ),
        ),
    ],
)
def test_a_wrong_name_of_a_variable_gets_the_right_one(
    name: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    assert fault() == f"{name}: {text}"


MISSPELLED = {
    "BUS_SERVICE__LAB__RETRIES": "BUS_SERVICES__LAB__RETRIES",
    "BUS_SERVICE__LAB__RETRYS": "BUS_SERVICES__LAB__RETRYS",
    "BUS_SERVCES__LAB__BASE_URL": "BUS_SERVICES__LAB__BASE_URL",
    "BUS_SERVICE_LAB__CACHE": "BUS_SERVICES__LAB__CACHE",
    "BUS_SERVICES_A__RETRIES": "BUS_SERVICES__A__RETRIES",
    "BUS_SERVICES_LAB__RETRIES": "BUS_SERVICES__LAB__RETRIES",
    "BUS_SERVICES_LAB_EU_ATTEMPT_TIMEOUT": "BUS_SERVICES__LAB_EU__ATTEMPT_TIMEOUT",
    "bus_service__lab__retries": "BUS_SERVICES__LAB__RETRIES",
    "BUS_SERVICES_DEFAULTS__RETRIES": "BUS_SERVICE_DEFAULTS__RETRIES",
    "BUS_SERVICE_DEFAULT__HEDGE_AFTER": "BUS_SERVICE_DEFAULTS__HEDGE_AFTER",
    "BUS_SERVICE_DEFAULTS_RETRIES": "BUS_SERVICE_DEFAULTS__RETRIES",
    "BUS_SERVICES_DEFAULTS_MAX_WAITING": "BUS_SERVICE_DEFAULTS__MAX_WAITING",
    "BUS_SERVICE_DEFAUTLS__RETRIES": "BUS_SERVICE_DEFAULTS__RETRIES",
    "BUS_DEFAULTS__BREAKER_FAILURES": "BUS_SERVICE_DEFAULTS__BREAKER_FAILURES",
    "BUS_SERVICE__RETRIES": "BUS_SERVICE_DEFAULTS__RETRIES",
}


@pytest.mark.parametrize(("name", "right"), MISSPELLED.items())
def test_a_variable_with_a_misspelled_beginning_gets_the_right_name(
    name: str, right: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "1")
    assert fault() == (
        f"{name}: the bus does not read this name. Write {right}, or remove the variable"
    )


@pytest.mark.parametrize(
    "name",
    [
        "BUS_SERVICE_VERSION",
        "BUS_SERVICES_FILE",
        "BUS_SERVICE_HOST",
        "BUS_SERVICE_PORT_AMQP",
        "BUS_SERVICE_SERVICE_HOST",
        "BUS_SERVICE_DB_TIMEOUT",
        "BUS_SERVICE__DB__HOST",
        "BUS_DEVICES__DOOR__TIMEOUT",
        "BUS_SERVICE_TILL__CACHE",
    ],
)
def test_a_variable_that_can_be_another_programs_is_no_fault(name: str) -> None:
    assert read_variables({name: "1"}).faults == []


def test_an_empty_variable_with_a_misspelled_beginning_is_not_set() -> None:
    assert read_variables({"BUS_SERVICE__LAB__RETRIES": " "}).faults == []


def test_a_variable_of_the_defaults_must_be_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_SERVICE_DEFAULTS__retries", "1")
    assert fault() == (
        "BUS_SERVICE_DEFAULTS__retries: the name must be in capitals. Write "
        "BUS_SERVICE_DEFAULTS__RETRIES, and remove BUS_SERVICE_DEFAULTS__retries"
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[defaults]\nretrys = 3",
            (
                ":2: unknown key 'retrys'; did you mean 'retries'? The keys of the defaults are "
                f"{', '.join(POLICY_KEYS)}"
            ),
        ),
        (
            "[defaults]\ntimeout = 3",
            (
                ":2: defaults.timeout: the timeout of all services is BUS_REQUEST_TIMEOUT. Set "
                "that variable instead"
            ),
        ),
        ("defaults = 3", ":1: defaults must be a table: [defaults]"),
        (
            "[default]",
            (
                ":1: unknown key 'default' (the values of a service belong in [services.<name>], "
                "and those of all services in [defaults]); did you mean 'defaults'?"
            ),
        ),
    ],
)
def test_a_wrong_table_of_defaults_is_named_with_its_line(
    text: str, problem: str, write: Write
) -> None:
    path = write(text)
    assert fault() == f"BUS_SERVICES_FILE: {path}{problem}"


@pytest.mark.parametrize("given", [{"retries": 3}, ServiceConfig("billing"), 7, "off"])
def test_another_value_than_service_defaults_is_refused(given: object) -> None:
    assert fault(service_defaults=given) == (
        "service_defaults: must be ServiceDefaults. Write "
        "service_defaults=ServiceDefaults(retries=3)"
    )


# --- Two values ---


PAIRS: list[tuple[dict[str, Any], str, str]] = [
    ({"timeout": 2, "attempt_timeout": 2}, "attempt_timeout", "less than timeout (@timeout)"),
    (
        {"attempt_timeout": 10},
        "attempt_timeout",
        "less than the timeout of a request (BUS_REQUEST_TIMEOUT)",
    ),
    (
        {"attempt_timeout": 1, "hedge_after": 1},
        "hedge_after",
        "less than attempt_timeout (@attempt_timeout)",
    ),
    ({"timeout": 1, "hedge_after": 1}, "hedge_after", "less than timeout (@timeout)"),
    (
        {"attempt_timeout": 1, "breaker_slow_call": 1.5},
        "breaker_slow_call",
        "less than attempt_timeout (@attempt_timeout)",
    ),
    ({"timeout": 1, "breaker_slow_call": 1}, "breaker_slow_call", "less than timeout (@timeout)"),
    (
        {"breaker_open_time": 31, "breaker_longest_open_time": 30},
        "breaker_open_time",
        "at most breaker_longest_open_time (@breaker_longest_open_time)",
    ),
    (
        {"breaker_open_time": 301},
        "breaker_open_time",
        "at most breaker_longest_open_time, which is 300 s if it is not set",
    ),
    (
        {"breaker_longest_open_time": 29},
        "breaker_longest_open_time",
        "at least breaker_open_time, which is 30 s if it is not set",
    ),
]
PAIR_IDS = [" and ".join(values) for values, _, _ in PAIRS]
BEFORE_AT = "@"


def conflict(key: str, relation: str, place: Callable[[str], str]) -> str:
    """Return the text of a conflict, with the place of each key after an `@`."""
    if BEFORE_AT in relation:
        text, other = relation.rstrip(")").split(BEFORE_AT)
        relation = f"{text}{place(other)})"
    size = "larger" if relation.startswith("at least") else "smaller"
    return f"{place(key)}: must be {relation}. Write a {size} number, or remove the value"


@pytest.mark.parametrize(("values", "key", "relation"), PAIRS, ids=PAIR_IDS)
def test_two_values_of_code_that_contradict_each_other_are_named(
    values: dict[str, Any], key: str, relation: str
) -> None:
    text = conflict(key, relation, lambda name: f"ServiceConfig('billing').{name}")
    assert fault(services=[ServiceConfig("billing", **values)]) == text


@pytest.mark.parametrize(("values", "key", "relation"), PAIRS, ids=PAIR_IDS)
def test_two_variables_that_contradict_each_other_are_named(
    values: dict[str, Any], key: str, relation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"BUS_SERVICES__BILLING__{name.upper()}", str(value))
    assert fault() == conflict(key, relation, lambda name: f"BUS_SERVICES__BILLING__{name.upper()}")


@pytest.mark.parametrize(("values", "key", "relation"), PAIRS, ids=PAIR_IDS)
def test_two_values_of_the_file_that_contradict_each_other_are_named_with_their_lines(
    values: dict[str, Any], key: str, relation: str, write: Write
) -> None:
    path = write("[services.billing]\n" + "".join(f"{name} = {values[name]}\n" for name in values))
    lines = {name: line for line, name in enumerate(values, 2)}
    assert fault() == conflict(
        key,
        relation,
        lambda name: f"BUS_SERVICES_FILE: {path}:{lines[name]}: services.billing.{name}",
    )


def test_a_value_that_contradicts_a_value_of_another_source_names_both(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("[services.billing]\nattempt_timeout = 3\n")
    monkeypatch.setenv("BUS_SERVICES__BILLING__TIMEOUT", "2")
    assert fault() == (
        f"BUS_SERVICES_FILE: {path}:2: services.billing.attempt_timeout: must be less than timeout "
        "(BUS_SERVICES__BILLING__TIMEOUT). Write a smaller number, or remove the value"
    )


def test_defaults_that_contradict_each_other_are_named(write: Write) -> None:
    path = write("[defaults]\nhedge_after = 2\nattempt_timeout = 1\n")
    assert fault() == (
        f"BUS_SERVICES_FILE: {path}:2: defaults.hedge_after: must be less than attempt_timeout "
        f"(BUS_SERVICES_FILE: {path}:3: defaults.attempt_timeout). Write a smaller number, or "
        "remove the value"
    )
    write("")
    assert fault(service_defaults=ServiceDefaults(attempt_timeout=2), request_timeout=2) == (
        "ServiceDefaults.attempt_timeout: must be less than the timeout of a request "
        "(BUS_REQUEST_TIMEOUT). Write a smaller number, or remove the value"
    )


def test_a_value_of_a_service_that_contradicts_a_default_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUS_SERVICE_DEFAULTS__ATTEMPT_TIMEOUT", "1")
    monkeypatch.setenv("BUS_SERVICE_DEFAULTS__BREAKER_OPEN_TIME", "40")
    monkeypatch.setenv("BUS_SERVICES__BILLING__HEDGE_AFTER", "1")
    monkeypatch.setenv("BUS_SERVICES__BILLING__BREAKER_LONGEST_OPEN_TIME", "35")
    assert fault() == (
        "BUS_SERVICES__BILLING__HEDGE_AFTER: must be less than attempt_timeout "
        "(BUS_SERVICE_DEFAULTS__ATTEMPT_TIMEOUT). Write a smaller number, or remove the value; "
        "BUS_SERVICES__BILLING__BREAKER_LONGEST_OPEN_TIME: must be at least breaker_open_time "
        "(BUS_SERVICE_DEFAULTS__BREAKER_OPEN_TIME). Write a larger number, or remove the value"
    )


def test_a_wrong_request_timeout_is_reported_without_a_comparison(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUS_REQUEST_TIMEOUT", "-1")
    monkeypatch.setenv("BUS_SERVICES__BILLING__ATTEMPT_TIMEOUT", "20")
    text = fault()
    assert text.startswith("BUS_REQUEST_TIMEOUT: ")
    assert "ATTEMPT" not in text


def test_no_error_shows_a_value(write: Write) -> None:
    write(f"[defaults]\nretries = '{SECRET}'\n[services.billing]\nbreaker = '{SECRET}'\n")
    assert SECRET not in fault()
