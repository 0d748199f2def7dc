"""Lists of hosts and parameters in `BUS_URL`."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError
from yarl import URL

from bus.errors import ConfigurationError
from bus.settings import Settings, load_settings


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BUS_{name.upper()}", raising=False)


def test_several_urls_and_several_hosts_of_a_url_are_addresses() -> None:
    settings = load_settings(url="amqp://u:p@one,two:5673/v;amqp://x:y@three/v")
    assert settings.addresses == (
        "amqp://u:p@one/v",
        "amqp://u:p@two:5673/v",
        "amqp://x:y@three/v",
    )
    assert load_settings(url=settings.address).addresses == settings.addresses


def test_the_password_of_a_file_stands_for_the_one_of_each_address(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("a/b;amqp://c\n")
    settings = load_settings(url="amqp://u@one,two/v", password_file=file)
    assert [URL(address).password for address in settings.addresses] == ["a/b;amqp://c"] * 2
    assert load_settings(url=settings.address).addresses == settings.addresses


def test_the_wrong_address_of_a_list_is_named_by_its_position() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(url="amqp://u:hunter2@one;amqp://u:hunter2@two:port")
    assert str(caught.value) == (
        "settings: BUS_URL: the 2nd address is not valid. "
        "Write amqp://user:password@host:port/vhost, or amqps://…"
    )


def test_a_list_of_management_apis_is_accepted_and_its_wrong_address_is_named() -> None:
    load_settings(management_url="http://u:p@one;http://u:p@two:15672/api")
    with pytest.raises(ConfigurationError, match="BUS_MANAGEMENT_URL: the 2nd address is not"):
        load_settings(management_url="http://u:p@one;http://u:p@two:port")


# --- The heartbeat ---


def test_the_heartbeat_of_the_url_counts_if_no_other_one_is_set() -> None:
    assert load_settings(url="amqp://localhost/?heartbeat=5").heartbeat == 5
    assert load_settings(url="amqp://one,two/?heartbeat=5").heartbeat == 5


def test_the_heartbeat_of_the_setting_and_of_the_url_can_be_equal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUS_URL", "amqp://localhost/?heartbeat=5")
    monkeypatch.setenv("BUS_HEARTBEAT", "5")
    assert load_settings().heartbeat == 5


def test_two_different_heartbeats_are_refused_also_if_one_is_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUS_URL", "amqp://localhost/?heartbeat=5")
    monkeypatch.setenv("BUS_HEARTBEAT", "10")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value) == (
        "settings: BUS_HEARTBEAT: differs from the heartbeat in BUS_URL. Remove one of the two"
    )
    with pytest.raises(ValidationError, match="differs from the heartbeat in BUS_URL"):
        Settings()


@pytest.mark.parametrize("value", ["0", "301", "-1", "5.5", "", "five", "\u0665", "1e1", "+5"])
def test_a_wrong_heartbeat_in_the_url_is_refused_with_the_bounds(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(url=f"amqp://localhost/?heartbeat={value}")
    assert str(caught.value) == (
        "settings: BUS_URL: the heartbeat in the address must be a whole number of seconds from 1 "
        "to 300. Correct it, or remove it and set BUS_HEARTBEAT"
    )


@pytest.mark.parametrize(
    "url",
    [
        "amqp://one/?heartbeat=5;amqp://two/?heartbeat=6",
        "amqp://one/?heartbeat=5;amqp://two/",
        "amqp://one/?heartbeat=5&heartbeat=6",
    ],
)
def test_heartbeats_that_differ_between_addresses_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="each address must have the same heartbeat"):
        load_settings(url=url)


# --- Other parameters ---


@pytest.mark.parametrize(
    ("parameter", "advice"),
    [
        ("connection_timeout=5", "set BUS_CONNECT_TIMEOUT"),
        ("timeout=5", "set BUS_CONNECT_TIMEOUT"),
        ("cacertfile=x", "set BUS_CA_FILE"),
        ("verify=verify_none", "the bus always verifies the certificate"),
        ("cafile=/ca.pem", "cafile is not allowed.* and set BUS_CA_FILE"),
        ("capath=/etc/certs", "set BUS_CA_FILE"),
        ("cadata=MII", "set BUS_CA_FILE"),
        ("certfile=/desk.pem", "set BUS_CLIENT_CERTIFICATE"),
        ("keyfile=/desk.key", "set BUS_CLIENT_KEY"),
        ("name=desk", "the bus names its connections"),
    ],
)
def test_a_parameter_of_other_clients_is_refused_with_what_to_set_instead(
    parameter: str, advice: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^settings: BUS_URL: .*{advice}"):
        load_settings(url=f"amqp://localhost/?{parameter}")


def test_an_unknown_parameter_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="has a parameter that the bus does not") as caught:
        load_settings(url="amqp://user:12?hunter2")
    assert "hunter2" not in str(caught.value)


def test_the_parameters_of_the_libraries_are_accepted() -> None:
    url = "amqps://localhost/?auth=plain&interleave=1&happy_eyeballs_delay=0.2"
    assert load_settings(url=url).address == url


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("auth=hunter2", "auth in the address must be plain or external"),
        ("auth=", "auth in the address must be plain or external"),
        ("happy_eyeballs_delay=hunter2", "happy_eyeballs_delay in the address must be a number"),
        ("happy_eyeballs_delay=-1", "happy_eyeballs_delay in the address must be a number"),
        ("happy_eyeballs_delay=nan", "happy_eyeballs_delay in the address must be a number"),
        ("interleave=0.5", "interleave in the address must be a digit"),
        ("interleave=", "interleave in the address must be a digit"),
    ],
)
def test_a_value_that_the_libraries_cannot_read_is_refused_and_not_shown(
    query: str, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^settings: BUS_URL: {problem}") as caught:
        load_settings(url=f"amqp://one/?auth=plain;amqp://two/?{query}")
    assert "hunter2" not in str(caught.value)


def test_an_error_of_pydantic_shows_no_part_of_a_url() -> None:
    for url in ("amqp://u:hunter2/x@host", "amqp://u:hunter℀2#@host", "amqp://u@host:hunter2"):
        with pytest.raises(ValidationError) as caught:
            Settings(url=SecretStr(url))
        assert "hunter" not in f"{caught.value} {caught.value!r}"
