"""The policies for calls: from code, variables and the file, for one service and for all."""

import os
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from bus import ServiceConfig, ServiceDefaults, Settings
from bus.messaging.ports.meter import NO_METER
from bus.messaging.resilience.call_policy import BreakerPolicy, CallPolicy
from bus.runtime.service_parts import destinations_of
from bus.settings import load_settings
from bus.settings.service_config import KEYS
from bus.settings.service_defaults import POLICY_KEYS
from bus.testing.explicit_settings import ExplicitSettings

VALUES: dict[str, Any] = {
    "attempt_timeout": 1.5,
    "retries": 4,
    "retry_budget": 0.1,
    "breaker": "on",
    "breaker_failure_rate": 0.25,
    "breaker_min_calls": 7,
    "breaker_window": 20.0,
    "breaker_consecutive_failures": 3,
    "breaker_slow_call": 1.0,
    "breaker_slow_rate": 0.75,
    "breaker_open_time": 5.0,
    "breaker_longest_open_time": 60.0,
    "breaker_open_growth": 2.0,
    "breaker_successes": 4,
    "max_in_flight": 50,
    "max_waiting": 60,
    "hedge_after": 0.5,
    "cache": "off",
}
"""A value of each key that is not the default, except for `breaker`."""
POLICY = CallPolicy(
    attempt_timeout=1.5,
    retries=4,
    retry_budget=0.1,
    breaker=BreakerPolicy(
        failure_rate=0.25,
        min_calls=7,
        window=20,
        consecutive_failures=3,
        slow_call=1,
        slow_rate=0.75,
        open_time=5,
        longest_open_time=60,
        open_growth=2,
        successes=4,
    ),
    max_in_flight=50,
    max_waiting=60,
    hedge_after=0.5,
    cache=False,
)
OFF = {
    "attempt_timeout": "off",
    "retry_budget": "off",
    "breaker_consecutive_failures": "off",
    "breaker_slow_call": "off",
    "max_in_flight": "off",
    "hedge_after": "off",
}
LINES = "".join(f"{key} = {value!r}\n" for key, value in VALUES.items())

Write = Callable[[str], Path]


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


def policy(settings: Settings, service: str = "billing") -> CallPolicy:
    """Return the policy that the bus applies to the calls to a service."""
    registry = settings.registry
    return registry.policies().get(service) or registry.default_policy()


# --- One service ---


def test_every_key_of_a_policy_has_a_value_in_these_tests() -> None:
    assert tuple(VALUES) == POLICY_KEYS
    assert [each.name for each in fields(ServiceDefaults)] == list(POLICY_KEYS)


def test_code_sets_each_value_of_a_service() -> None:
    assert policy(Settings(services=[ServiceConfig("billing", **VALUES)])) == POLICY


def test_variables_set_each_value_of_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in VALUES.items():
        monkeypatch.setenv(f"BUS_SERVICES__BILLING__{key.upper()}", f" {value} ")
    assert policy(load_settings()) == POLICY


def test_a_table_of_the_file_sets_each_value_of_a_service(write: Write) -> None:
    write(f"[services.billing]\n{LINES}")
    assert policy(load_settings()) == POLICY


def test_off_turns_a_policy_off(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = CallPolicy(
        attempt_timeout=None,
        retry_budget=None,
        breaker=BreakerPolicy(consecutive_failures=None, slow_call=None),
        max_in_flight=None,
        hedge_after=None,
    )
    for key, value in OFF.items():
        monkeypatch.setenv(f"BUS_SERVICES__OFFICE__{key.upper()}", value)
    write("[services.billing]\n" + "".join(f"{key} = 'off'\n" for key in OFF))
    shop: Any = OFF
    settings = load_settings(services=[ServiceConfig("shop", **shop)])
    assert [policy(settings, name) for name in ("billing", "office", "shop")] == [expected] * 3


def test_a_service_without_a_breaker_keeps_the_other_policies() -> None:
    settings = Settings(services=[ServiceConfig("billing", breaker="off", breaker_min_calls=3)])
    assert policy(settings) == CallPolicy(breaker=None)


def test_without_values_the_policy_is_the_default() -> None:
    assert policy(load_settings()) == CallPolicy()
    assert policy(Settings(services=[ServiceConfig("billing")])) == CallPolicy()


# --- All services ---


def test_code_sets_the_defaults_of_all_services() -> None:
    settings = Settings(service_defaults=ServiceDefaults(**VALUES))
    assert policy(settings) == POLICY
    assert settings.service_defaults == ServiceDefaults(**VALUES)


def test_variables_set_the_defaults_of_all_services(monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in VALUES.items():
        monkeypatch.setenv(f"BUS_SERVICE_DEFAULTS__{key.upper()}", f" {value} ")
    assert policy(load_settings()) == POLICY
    assert load_settings().service_defaults == ServiceDefaults(**VALUES)


def test_the_table_defaults_of_the_file_sets_the_defaults_of_all_services(write: Write) -> None:
    write(f"[defaults]\n{LINES}")
    assert policy(load_settings()) == POLICY
    assert load_settings().service_defaults == ServiceDefaults(**VALUES)


def test_each_default_comes_from_code_before_a_variable_before_the_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write("[defaults]\nretries = 1\nmax_in_flight = 1\nmax_waiting = 1\n")
    monkeypatch.setenv("BUS_SERVICE_DEFAULTS__RETRIES", "2")
    monkeypatch.setenv("BUS_SERVICE_DEFAULTS__MAX_IN_FLIGHT", "2")
    settings = load_settings(service_defaults=ServiceDefaults(retries=3))
    assert policy(settings) == CallPolicy(retries=3, max_in_flight=2, max_waiting=1)
    assert settings.registry.describe_defaults() == [
        "retries 3 (code)",
        "max_in_flight 2 (BUS_SERVICE_DEFAULTS__MAX_IN_FLIGHT)",
        f"max_waiting 1 ({path})",
    ]


def test_the_value_of_a_service_wins_over_a_default_of_any_source(write: Write) -> None:
    write("[services.billing]\nretries = 0\nbreaker = 'on'\nattempt_timeout = 'off'\n")
    defaults = ServiceDefaults(retries=9, breaker="off", attempt_timeout=2, max_waiting=5)
    settings = load_settings(service_defaults=defaults)
    assert policy(settings, "billing") == CallPolicy(retries=0, max_waiting=5)
    assert policy(settings, "office") == CallPolicy(
        retries=9, breaker=None, attempt_timeout=2, max_waiting=5
    )


def test_a_default_that_is_longer_than_the_timeout_of_a_service_says_nothing_there() -> None:
    defaults = ServiceDefaults(attempt_timeout=2, hedge_after=1, breaker_slow_call=1.5)
    settings = Settings(
        services=[
            ServiceConfig("billing", timeout=1),
            ServiceConfig("office", attempt_timeout=1.2),
        ],
        service_defaults=defaults,
    )
    assert policy(settings, "billing") == CallPolicy()
    assert policy(settings, "office") == CallPolicy(attempt_timeout=1.2, hedge_after=1)
    assert policy(settings, "shop") == CallPolicy(
        attempt_timeout=2, hedge_after=1, breaker=BreakerPolicy(slow_call=1.5)
    )


def test_the_default_number_of_retries_limits_the_calls_to_every_service() -> None:
    settings = Settings(
        services=[ServiceConfig("billing", retries=1), ServiceConfig("office")],
        service_defaults=ServiceDefaults(retries=4),
    )
    limits = settings.registry.limits()
    assert [limits[name].retries for name in ("billing", "office")] == [1, 4]
    assert settings.registry.default_limits().retries == 4


def test_the_kit_of_tests_reads_no_variable_of_the_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUS_SERVICE_DEFAULTS__RETRIES", "2")
    monkeypatch.setenv("BUS_SERVICE_DEFAULTS__RETRYS", "2")
    assert ExplicitSettings().service_defaults == ServiceDefaults()
    configured = ExplicitSettings(service_defaults=ServiceDefaults(retries=1))
    assert configured.service_defaults.retries == 1


async def test_a_bus_applies_the_policies_of_its_settings() -> None:
    settings = ExplicitSettings(
        auth="off",
        services=[ServiceConfig("billing", max_in_flight=3)],
        service_defaults=ServiceDefaults(max_in_flight=4),
    )
    destinations = destinations_of(settings, NO_METER, time.time)
    assert destinations.of("billing.quote.v1").policy.max_in_flight == 3
    assert destinations.of("office.open.v1").policy.max_in_flight == 4


def test_the_repr_of_a_configuration_has_only_the_values_that_are_set() -> None:
    config = ServiceConfig("billing", retries=2, timeout=3, breaker="off")
    assert repr(config) == "ServiceConfig(name='billing', timeout=3.0, retries=2, breaker='off')"
    assert repr(ServiceDefaults()) == "ServiceDefaults()"


def test_every_key_has_a_row_in_the_how_to_of_calls() -> None:
    page = (Path(__file__).parents[3] / "docs/how-to/configure-calls.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    keys = [line.split("`")[1] for line in rows]
    assert sorted(keys) == sorted(key.upper() for key in KEYS)
