"""The registry of the services that a process calls: its sources and their errors."""

import os
from collections.abc import Callable
from datetime import timedelta
from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bus import ServiceConfig, Settings
from bus.errors import ConfigurationError
from bus.settings import load_settings
from bus.settings.service_config import KEYS
from bus.settings.service_variables import variable_of
from bus.testing.explicit_settings import ExplicitSettings

SECRET = "hunter2"
NUMBER = "must be a number of seconds above 0 and up to 86400. Write a number such as 2.5"

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


def fault(**overrides: object) -> str:
    """Return the text of the error with which the settings refuse their sources."""
    with pytest.raises(ConfigurationError) as caught:
        load_settings(**overrides)
    return str(caught.value).removeprefix("settings: ")


# --- Sources ---


def test_without_values_the_registry_is_empty() -> None:
    assert list(load_settings().services) == []
    assert load_settings(request_timeout=7).timeout_of("billing") == 7


def test_a_variable_sets_one_value_of_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_SERVICES__TRANSCRIPTION__TIMEOUT", " 10 ")
    monkeypatch.setenv("BUS_SERVICES__TRANSCRIPTION__RETRIES", "0")
    monkeypatch.setenv("BUS_SERVICES__TRANSCRIPTION__BASE_URL", "https://speech.example/v1")
    settings = load_settings()
    assert list(settings.services) == [
        ServiceConfig("transcription", timeout=10, retries=0, base_url="https://speech.example/v1")
    ]
    assert settings.service("transcription").retries == 0
    assert settings.service("billing") == ServiceConfig("billing")
    assert settings.timeout_of("transcription") == 10


@pytest.mark.parametrize(
    ("name", "service"),
    [
        ("BUS_SERVICES__BILLING_EU__TIMEOUT", "billing-eu"),
        ("BUS_SERVICES__BILLING-EU__TIMEOUT", "billing-eu"),
        ("BUS_SERVICES__A__B__TIMEOUT", "a--b"),
        ("BUS_SERVICES__A___TIMEOUT", "a-"),
        ("BUS_SERVICES__SERVICES__TIMEOUT", "services"),
    ],
)
def test_an_underscore_or_a_dash_in_a_variable_is_the_dash_of_a_service(
    name: str, service: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "3")
    assert load_settings().service(service).timeout == 3
    assert variable_of(service, "timeout") == name.replace("BILLING-EU", "BILLING_EU")


def test_an_empty_variable_of_a_service_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_SERVICES__BILLING__TIMEOUT", " \r\n")
    monkeypatch.setenv("BUS_SERVICES", "")
    assert list(load_settings().services) == []


def test_a_table_of_the_file_sets_the_values_of_a_service(write: Write) -> None:
    write("[services.billing]\ntimeout = 3\nretries = 2\n[services.office]\n")
    assert list(load_settings().services) == [
        ServiceConfig("billing", timeout=3, retries=2),
        ServiceConfig("office"),
    ]


def test_code_passes_a_list_of_configurations() -> None:
    billing = ServiceConfig("billing", timeout=3)
    assert list(Settings(services=[billing]).services) == [billing]
    again = Settings(services=Settings(services=[billing]).services)
    assert list(again.services) == [billing]


def test_each_value_comes_from_code_before_a_variable_before_the_file(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        "[services.billing]\ntimeout = 1\nretries = 1\nbase_url = 'http://file'\n"
        "[services.office]\ntimeout = 1\n"
    )
    monkeypatch.setenv("BUS_SERVICES__BILLING__TIMEOUT", "2")
    monkeypatch.setenv("BUS_SERVICES__BILLING__RETRIES", "2")
    settings = load_settings(services=[ServiceConfig("billing", timeout=3)])
    assert list(settings.services) == [
        ServiceConfig("billing", timeout=3, retries=2, base_url="http://file"),
        ServiceConfig("office", timeout=1),
    ]
    assert settings.registry.describe("billing") == [
        "timeout 3 s (code)",
        "retries 2 (BUS_SERVICES__BILLING__RETRIES)",
        f"base_url http://file ({path})",
    ]


def test_the_kit_of_tests_reads_no_variable_of_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_SERVICES__BILLING__TIMEOUT", "2")
    monkeypatch.setenv("BUS_SERVICES__OFFICE__TIMEUOT", "2")
    assert list(ExplicitSettings().services) == []
    configured = ExplicitSettings(services=[ServiceConfig("billing", timeout=3)])
    assert configured.timeout_of("billing") == 3


def test_the_registry_never_changes() -> None:
    services = Settings(services=[ServiceConfig("billing")]).services
    with pytest.raises(TypeError):
        services[0] = ServiceConfig("billing")  # type: ignore[index]
    with pytest.raises(AttributeError):
        services[0].timeout = 3  # type: ignore[misc]


# --- Wrong variables ---


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        (
            "BUS_SERVICES__BILLING__TIMEUOT",
            SECRET,
            (
                "TIMEUOT is not a key of a service; did you mean 'TIMEOUT'? Correct or remove the "
                "variable"
            ),
        ),
        (
            "BUS_SERVICES__BILLING__COLOUR",
            SECRET,
            (
                f"COLOUR is not a key of a service ({', '.join(KEYS).upper()}). Correct or remove "
                "the variable"
            ),
        ),
        (
            "BUS_SERVICES__BILLING",
            SECRET,
            (
                "the name must end with two underscores and a key. Write "
                "BUS_SERVICES__BILLING__TIMEOUT, or remove the variable"
            ),
        ),
        (
            "BUS_SERVICES__BILLING_EU_MAX_WAITING",
            SECRET,
            (
                "the name must end with two underscores and a key. Write "
                "BUS_SERVICES__BILLING_EU__MAX_WAITING, or remove the variable"
            ),
        ),
        (
            "BUS_SERVICES__BILLING__CRITICALITY",
            SECRET,
            (
                "criticality is an option of the contract. Write criticality= in @contract(…) "
                "instead"
            ),
        ),
        *[
            (
                name,
                "5",
                (
                    "the name has no service. Write BUS_SERVICES__BILLING__TIMEOUT=10, or remove "
                    "the variable"
                ),
            )
            for name in ("BUS_SERVICES__", "BUS_SERVICES____TIMEOUT")
        ],
        (
            "BUS_SERVICES__7UP__TIMEOUT",
            "1",
            (
                "7UP is not the name of a service. Write BUS_SERVICES__BILLING__TIMEOUT=10, or "
                "remove the variable"
            ),
        ),
        (
            "BUS_SERVICES",
            '{"billing": {"timeout": 1}}',
            (
                "a service has one variable for each value. Write "
                "BUS_SERVICES__BILLING__TIMEOUT=10, or set BUS_SERVICES_FILE"
            ),
        ),
        *[
            ("BUS_SERVICES__BILLING__TIMEOUT", value, NUMBER)
            for value in ("0", "-1", "nan", "inf", "86401", "1e300", SECRET, "true")
        ],
        *[
            (
                "BUS_SERVICES__BILLING__RETRIES",
                value,
                "must be a whole number from 0 to 1000. Write a number such as 3",
            )
            for value in ("-1", "1.5", "1001", SECRET, "true", "9" * 5000)
        ],
        (
            "BUS_SERVICES__BILLING__BASE_URL",
            f"ftp://{SECRET}",
            (
                "the address must begin with http:// or https://, but begins with ftp://. Write "
                "http://host:port/path, or https://…"
            ),
        ),
        *[
            (
                "BUS_SERVICES__BILLING__BASE_URL",
                value,
                (
                    "must be one address without a user, a password, a query and a fragment. Write "
                    "http://host:port/path, or https://…, and keep credentials in a secret of your "
                    "application"
                ),
            )
            for value in (
                f"https://user:{SECRET}@billing",
                f"https://{SECRET}@billing",
                f"https://billing?key={SECRET}",
                "https://one,two",
            )
        ],
        (
            "BUS_SERVICES__BILLING__BASE_URL",
            SECRET,
            "the address is not valid. Write http://host:port/path, or https://…",
        ),
    ],
)
def test_a_wrong_variable_of_a_service_is_named_without_its_value(
    name: str, value: str, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert fault() == f"{name}: {text}"


def test_a_variable_of_a_service_must_be_in_capitals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_SERVICES__billing__TIMEOUT", "1")
    assert fault() == (
        "BUS_SERVICES__billing__TIMEOUT: the name must be in capitals. Write "
        "BUS_SERVICES__BILLING__TIMEOUT, and remove BUS_SERVICES__billing__TIMEOUT"
    )


def test_two_spellings_of_one_value_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_SERVICES__BILLING_EU__TIMEOUT", "1")
    monkeypatch.setenv("BUS_SERVICES__BILLING-EU__TIMEOUT", "1")
    assert fault() == (
        "BUS_SERVICES__BILLING_EU__TIMEOUT: BUS_SERVICES__BILLING-EU__TIMEOUT sets the same "
        "value. Remove one of the two"
    )


def test_all_wrong_settings_and_services_are_named_at_once(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("[services.office]\nretries = 'many'\n")
    monkeypatch.setenv("BUS_HEARTBEAT", "0")
    monkeypatch.setenv("BUS_SERVICES__BILLING__TIMEOUT", "0")
    text = fault()
    assert "BUS_HEARTBEAT: " in text
    assert "BUS_SERVICES__BILLING__TIMEOUT: " in text
    assert "services.toml:2: services.office.retries: " in text


def test_a_long_or_strange_name_makes_a_short_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"BUS_SERVICES__{'Z' * 5000}__\x1bKEY\n", "1")
    text = fault()
    assert len(text) < 700
    assert "\n" not in text
    assert "\x1b" not in text


# --- Wrong files ---


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "[services.billing]\ntimeuot = 3",
            (
                ":2: unknown key 'timeuot'; did you mean 'timeout'? The keys of a service are "
                f"{', '.join(KEYS)}"
            ),
        ),
        (
            "[services.billing]\ncolour = 3",
            f":2: unknown key 'colour'. The keys of a service are {', '.join(KEYS)}",
        ),
        (
            "[services.billing]\nencrypted = true",
            (
                ":2: services.billing.encrypted: encrypted is an option of the contract. Write "
                "encrypted= in @contract(…) instead"
            ),
        ),
        ("\n[services.billing]\ntimeout = true", f":3: services.billing.timeout: {NUMBER}"),
        ("\n[services.billing]\ntimeout = nan", f":3: services.billing.timeout: {NUMBER}"),
        (f"[services.billing]\ntimeout = '{SECRET}'", f":2: services.billing.timeout: {NUMBER}"),
        (
            f"[services.billing]\nbase_url = ['{SECRET}']",
            ":2: services.billing.base_url: must be text. Write http://host:port/path, or https://…",
        ),
        (
            "[service.billing]",
            (
                ":1: unknown key 'service' (the values of a service belong in [services.<name>], "
                "and those of all services in [defaults]); did you mean 'services'?"
            ),
        ),
        ("services = 3", ":1: services must be tables: [services.<name>]"),
        (
            "[services]\nbilling = 3",
            ":2: services.billing must be a table: [services.billing]",
        ),
        (
            "[services.Billing]\n",
            (
                ":1: 'Billing' is not a valid service name. Write at most 60 lower-case letters, "
                "digits and dashes, and begin with a letter"
            ),
        ),
        (
            "[services.billing]\ntimeout  3",
            (
                " is not TOML: Expected '=' after a key in a key/value pair (at line 2, column "
                "10). Correct the file"
            ),
        ),
        (
            "[services.billing]\n[services.billing]\n",
            (
                " is not TOML: Cannot declare ('services', 'billing') twice (at line 2, column "
                "18). Correct the file"
            ),
        ),
    ],
)
def test_a_wrong_services_file_is_named_with_its_line(
    text: str, problem: str, write: Write
) -> None:
    path = write(text)
    assert fault() == f"BUS_SERVICES_FILE: {path}{problem}"


def test_a_services_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nothing.toml"
    assert fault(services_file=path) == (
        f"BUS_SERVICES_FILE: {path} cannot be read: No such file or directory"
    )
    os.mkfifo(path)
    assert "is not a regular file" in fault(services_file=path)


def test_a_services_file_that_all_users_can_write_is_refused(write: Write) -> None:
    path = write("[services.billing]\n")
    path.chmod(0o666)
    assert fault() == (
        f"BUS_SERVICES_FILE: {path} has mode 666. Other users must not write to it: run "
        f"`chmod o-w {path}`."
    )


# --- Wrong code ---


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"timeout": value}, f"ServiceConfig('billing').timeout: {NUMBER}.")
        for value in (0, -1, nan, inf, True, "5", timedelta(seconds=5), 10**400)
    ]
    + [
        (
            {"retries": value},
            (
                "ServiceConfig('billing').retries: must be a whole number from 0 to 1000. Write a "
                "number such as 3."
            ),
        )
        for value in (-1, 1.5, True, "3")
    ],
)
def test_a_wrong_value_in_code_is_refused_where_it_is_written(
    values: dict[str, Any], text: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ServiceConfig("billing", **values)
    assert str(caught.value) == text


@pytest.mark.parametrize("name", ["Billing", "", "bus", "a_b", 7, None])
def test_a_wrong_name_in_code_is_refused(name: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^ServiceConfig: "):
        ServiceConfig(name)


@pytest.mark.parametrize("given", [{"billing": {"timeout": 3}}, "billing", 7, ["billing"], None])
def test_another_value_than_a_list_of_configurations_is_refused(given: object) -> None:
    text = "services: must be a list of ServiceConfig. Write services=[ServiceConfig('billing')]"
    assert fault(services=given) == text
    with pytest.raises(ValidationError, match="must be a list of ServiceConfig"):
        Settings(services=given)  # type: ignore[arg-type]


def test_two_configurations_of_one_service_are_refused() -> None:
    assert fault(services=[ServiceConfig("billing")] * 2) == (
        "services: the list has two entries for 'billing'. Write one ServiceConfig for each service"
    )
