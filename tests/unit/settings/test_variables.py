"""Variables that look like settings and are not."""

import pytest
from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from bus.settings import EnvironmentSettings, Settings
from bus.settings.variables import describe_unknown_variables


class Shop(EnvironmentSettings):
    """Settings of a user's program that begin as those of the bus."""

    model_config = SettingsConfigDict(env_prefix="BUS_SHOP_", env_nested_delimiter="__")
    till: int = 1
    door: str = Field(default="", validation_alias=AliasChoices("BUS_GATE", "GATE"))


class Other(BaseSettings):
    """Settings of a user's program that do not derive from those of the bus."""

    model_config = SettingsConfigDict(env_prefix="BUS_OTHER_")
    depot: str = ""


KNOWN = [
    *(f"BUS_{field.upper()}" for field in Settings.model_fields),
    "BUS_CONTRACTS",
    "BUS_ENV_FILE",
    "BUS_TEST_BROKER",
    "BUS_TEST_IMAGE",
    "BUS_TEST_URL",
    "BUS_TEST_MANAGEMENT_URL",
    "BUS_SHOP_TILL",
    "BUS_SHOP_TILL__DRAWER",
    "BUS_GATE",
    "BUS_OTHER_DEPOT",
    "_BUS_COMPLETE",
    "DBUS_SESSION_BUS_ADDRESS",
    "BUS",
    "PATH",
]


@pytest.mark.parametrize("name", KNOWN)
def test_a_variable_of_the_bus_or_of_the_program_is_known(name: str) -> None:
    assert describe_unknown_variables({name: "1"}) == []


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BUS_HEARTBAET", "BUS_HEARTBEAT"),
        ("BUS_PASSWORDFILE", "BUS_PASSWORD_FILE"),
        ("BUS_JWK", "BUS_JWKS"),
        ("bus_heartbaet", "BUS_HEARTBEAT"),
        ("BUS_CONTRACT", "BUS_CONTRACTS"),
        ("BUS_SHOP_TIL", "BUS_SHOP_TILL"),
        ("BUS_TEST_BROKR", "BUS_TEST_BROKER"),
    ],
)
def test_a_misspelled_variable_is_described_with_the_nearest_name(name: str, meant: str) -> None:
    assert describe_unknown_variables({name: "secret"}) == [
        f"{name} is not a setting of the bus, so the bus ignores it; did you mean {meant}?"
    ]


def test_a_variable_that_is_like_none_is_described_without_a_suggestion() -> None:
    assert describe_unknown_variables({"BUS_ID": "42"}) == [
        "BUS_ID is not a setting of the bus, so the bus ignores it"
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BUS_SERVICE_HOST", "10.0.0.1"),
        ("BUS_SERVICE_PORT", "5672"),
        ("BUS_SERVICE_PORT_AMQP", "5672"),
        ("BUS_BROKER_SERVICE_HOST", "10.0.0.1"),
        ("BUS_PORT", "tcp://10.0.0.1:5672"),
        ("BUS_BROKER_PORT", "tcp://10.0.0.1:5672"),
        ("BUS_PORT_5672_TCP", "tcp://10.0.0.1:5672"),
        ("BUS_PORT_5672_TCP_ADDR", "10.0.0.1"),
        ("BUS_BROKER_PORT_5672_TCP_PROTO", "tcp"),
    ],
)
def test_the_variables_of_a_kubernetes_service_are_not_described(name: str, value: str) -> None:
    assert describe_unknown_variables({name: value}) == []


def test_a_port_that_kubernetes_has_not_set_is_described() -> None:
    assert "BUS_HEALTH_PORT" in describe_unknown_variables({"BUS_PORT": "8080"})[0]


def test_many_variables_and_strange_names_make_short_lines() -> None:
    described = describe_unknown_variables({f"BUS_X{n:03}": "" for n in range(50)})
    assert (len(described), described[-1]) == (
        11,
        "40 more variables are not settings of the bus",
    )
    described = describe_unknown_variables({f"BUS_X{n:03}": "" for n in range(11)})
    assert described[-1] == "1 more variable is not a setting of the bus"
    assert len(describe_unknown_variables({f"BUS_{'Z' * 10_000}": ""})[0]) < 140
    assert "\n" not in describe_unknown_variables({"BUS_A\nB\x1b": ""})[0]


def test_a_variable_of_a_service_with_single_underscores_gets_the_right_name() -> None:
    (described,) = describe_unknown_variables({"BUS_SERVICE_BILLING_BREAKER_WINDOW": "1"})
    assert described.endswith("did you mean BUS_SERVICES__BILLING__BREAKER_WINDOW?")


def test_a_variable_that_the_settings_refuse_is_not_described() -> None:
    assert describe_unknown_variables({"BUS_SERVICE__BILLING__RETRIES": "1"}) == []


def test_a_variable_of_the_defaults_is_known() -> None:
    assert describe_unknown_variables({"BUS_SERVICE_DEFAULTS__RETRIES": "1"}) == []
