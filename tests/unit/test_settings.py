from collections.abc import Callable
from math import inf, nan
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from yarl import URL

from bus.errors import ConfigurationError
from bus.settings import Settings, load_settings
from bus.testing.explicit_settings import ExplicitSettings
from bus.testing.shell import shell_settings
from tests.integration.certificates import Certificates, certificates

SECRET = "hunter2"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"BUS_{name.upper()}", raising=False)


def test_every_setting_has_a_default() -> None:
    assert load_settings().heartbeat == 10


def test_the_environment_is_read() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUS_HEARTBEAT", "30")
        assert load_settings().heartbeat == 30


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("url", f"http://guest:{SECRET}@localhost"),
        ("url", f"amqp://guest:{SECRET}@localhost:port"),
        ("url", f"amqp://guest:{SECRET}@localhost:70000"),
        ("url", f"amqp://guest:{SECRET}#@localhost"),
        ("url", f"amqp://guest:{SECRET}@"),
        ("url", f"amqp://[{SECRET}"),
        ("url", f"amqps://guest:{SECRET}@localhost/?no_verify_ssl=1"),
        ("url", f"amqps://guest:{SECRET}@localhost/?no_verify_ssl"),
        ("url", f"amqps://guest:{SECRET}@localhost/?heartbeat=5&no_verify_ssl="),
        ("ca_file", f"/nowhere/{SECRET}"),
        ("ca_file", __file__),
        ("password_file", f"/nowhere/{SECRET}"),
        ("password_file", __file__),
        ("client_key", f"/nowhere/{SECRET}"),
        ("store", f"postgresql://u:{SECRET}@localhost"),
        ("store", f"mysql://u:{SECRET}@localhost/books"),
        ("store", f"postgresql://u:{SECRET}@x@localhost/books"),
        ("store", f"postgresql://u@localhost/books?{SECRET}=1"),
        ("store", f"sqlite://{SECRET}"),
        ("store", SECRET),
        ("store_password_file", f"/nowhere/{SECRET}"),
        ("management_url", f"amqp://u:{SECRET}@localhost"),
        ("management_url", f"http://u:{SECRET}@localhost:port"),
        ("management_url", f"http://u:{SECRET}@"),
        ("management_url", f"http://u:{SECRET}@broker..example"),
        ("topology", SECRET),
        ("heartbeat", SECRET),
        ("heartbeat", "0"),
        ("request_timeout", "inf"),
        ("request_timeout", "nan"),
        ("request_timeout", "1e300"),
        ("message_ttl", "1e11"),
        ("request_timeout", "-1"),
        ("request_queue", SECRET),
        ("max_message", SECRET),
        ("log_level", SECRET),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not_shown(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"BUS_{name.upper()}", value)
    with pytest.raises(ConfigurationError, match=f"^settings: BUS_{name.upper()}: ") as caught:
        load_settings()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (
            f"http://guest:{SECRET}@localhost",
            (
                "the address must begin with amqp:// or amqps://, but begins with http://. "
                "Write amqp://user:password@host:port/vhost, or amqps://…"
            ),
        ),
        (
            f"amqps://guest:{SECRET}@localhost/?no_verify_ssl=1",
            (
                "no_verify_ssl is not allowed, because the bus always verifies the certificate. "
                "Remove it from the URL. Set BUS_CA_FILE to use your own certificate authority"
            ),
        ),
        (
            f"amqp://guest:{SECRET}@broker..example",
            "the address is not valid. Write amqp://user:password@host:port/vhost, or amqps://…",
        ),
        (
            f"amqp://guest:{SECRET}@{'b' * 64}.example",
            "the address is not valid. Write amqp://user:password@host:port/vhost, or amqps://…",
        ),
        (
            f"guest:{SECRET}@localhost",
            "the address is not valid. Write amqp://user:password@host:port/vhost, or amqps://…",
        ),
    ],
)
def test_the_text_for_a_wrong_url_names_its_fault(url: str, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_settings(url=url)
    assert str(caught.value) == f"settings: BUS_URL: {text}"


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("debug", SECRET, "must be true or false"),
        ("heartbeat", SECRET, "must be an integer"),
        ("heartbeat", "0", "must be at least 1"),
        ("stop_grace", SECRET, "must be a number"),
        ("log_level", SECRET, "must be 'debug', 'info', 'warning' or 'error'"),
    ],
)
def test_a_wrong_setting_has_a_sentence_with_the_rule(
    name: str, value: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"BUS_{name.upper()}", value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value) == f"settings: BUS_{name.upper()}: {rule}"


@pytest.mark.parametrize(
    ("value", "size"), [("4096", 4096), ("32MiB", 33_554_432), ("512 MiB", 536_870_912)]
)
def test_the_limit_of_a_message_is_a_number_of_bytes_or_has_a_unit(
    value: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings().max_message == 16_777_216
    monkeypatch.setenv("BUS_MAX_MESSAGE", value)
    assert load_settings().max_message == size


@pytest.mark.parametrize("value", ["4095", "536870913", "1GiB", "0", "-1", "5e3", "inf", "ten"])
def test_a_limit_of_a_message_that_is_out_of_range_is_refused_with_the_range(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUS_MAX_MESSAGE", value)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value) == (
        "settings: BUS_MAX_MESSAGE: the number of bytes is not valid. Write a number from 4096 to "
        "536870912, or a text such as 32MiB"
    )


def test_all_wrong_settings_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"BUS_HEARTBEAT.*; BUS_STOP_GRACE"):
        load_settings(heartbeat=0, stop_grace=-1)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://localhost",
        "amqps://u:p@broker.example:5671/vhost",
        "amqp://u:p@[::1]:5672/%2F?interleave=1",
    ],
)
def test_an_address_passes_as_it_is(url: str) -> None:
    assert load_settings(url=url).url.get_secret_value() == url


def test_the_password_is_not_in_the_repr() -> None:
    assert SECRET not in repr(load_settings(url=f"amqp://u:{SECRET}@localhost"))


def test_a_management_api_that_is_left_empty_is_none() -> None:
    assert load_settings(management_url="").management_url is None


@pytest.fixture
def made(tmp_path: Path) -> Certificates:
    return certificates(tmp_path / "made", "localhost")


def test_certificates_go_along_with_the_address_and_say_who_we_are_where_no_password_does(
    made: Certificates,
) -> None:
    files: dict[str, object] = {"ca_file": made.authority, "client_certificate": made.client}
    told = parse_qs(
        urlsplit(load_settings(url="amqps://desk@localhost/?interleave=1", **files).address).query
    )
    assert told == {
        "interleave": ["1"],
        "cafile": [str(made.authority)],
        "certfile": [str(made.client)],
        "auth": ["external"],
    }
    assert "auth" not in parse_qs(
        urlsplit(load_settings(url="amqps://desk:secret@localhost/", **files).address).query
    )
    assert (
        load_settings(url="amqp://desk:secret@localhost/", **files).address
        == "amqp://desk:secret@localhost/"
    )


@pytest.mark.parametrize(
    "password", ["hunter 2", "a:b@c/d?e#f%41+g", "schlüssel", "eyJhbGciOiJSUzI1NiJ9.e30._-"]
)
@pytest.mark.parametrize("credentials", ["desk:old@", "desk@", "desk:@", "%40desk:old@", ""])
def test_the_password_of_a_file_stands_for_the_one_in_the_address(
    tmp_path: Path, credentials: str, password: str
) -> None:
    file = tmp_path / "password"
    file.write_text(f"{password}\n")
    settings = load_settings(
        url=f"amqps://{credentials}localhost:5671/books?interleave=1", password_file=file
    )
    address = URL(settings.address)
    assert address.password == password
    assert address.user == (URL(settings.url.get_secret_value()).user or None)
    assert (address.host, address.port, address.path, dict(address.query)) == (
        "localhost",
        5671,
        "/books",
        {"interleave": "1"},
    )
    assert password not in repr(settings)
    file.write_text("the next")
    assert URL(settings.address).password == "the next"


def test_with_a_password_in_a_file_no_certificate_says_who_we_are(
    made: Certificates, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("secret")
    settings = load_settings(
        url="amqps://desk@localhost/", client_certificate=made.client, password_file=file
    )
    assert "auth" not in parse_qs(urlsplit(settings.address).query)


def test_a_certificate_without_its_key_is_refused(made: Certificates) -> None:
    load_settings(client_certificate=made.certificate, client_key=made.key)
    with pytest.raises(
        ConfigurationError,
        match=r"BUS_CLIENT_KEY: certificate and key cannot be used\. Set BUS_CLIENT_CERTIFICATE to",
    ):
        load_settings(client_certificate=made.certificate)
    with pytest.raises(ConfigurationError, match="BUS_CLIENT_KEY: "):
        load_settings(client_certificate=made.certificate, client_key=made.client)
    with pytest.raises(ConfigurationError, match="BUS_CLIENT_KEY: "):
        load_settings(client_key=made.key)


# --- Names in other letters ---


@pytest.mark.parametrize("field", Settings.model_fields)
@pytest.mark.parametrize("spell", [str.lower, str.title, str.swapcase])
def test_a_variable_in_other_letters_is_refused_by_its_name(
    field: str, spell: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"BUS_{field.upper()}"
    other = spell(name) if spell is not str.swapcase else f"bus_{field.upper()}"
    monkeypatch.setenv(other, SECRET)
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert str(caught.value) == (
        f"settings: {other}: the name must be in capitals. Write {name}, and remove {other}"
    )


def test_a_kelvin_sign_in_the_name_of_a_variable_is_not_a_k(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUS_\u212aEY", SECRET)
    with pytest.raises(
        ConfigurationError, match=r"^settings: BUS_\\u212aEY: .* Write BUS_KEY, and"
    ):
        load_settings()


@pytest.mark.parametrize("value", ["off", "on", ""])
def test_a_variable_in_other_letters_is_refused_beside_the_right_one_and_when_empty(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUS_AUTH", "on")
    monkeypatch.setenv("bus_auth", value)
    for overrides in ({}, {"auth": "on"}):
        with pytest.raises(ConfigurationError, match=r"^settings: bus_auth: "):
            load_settings(**overrides)
    with pytest.raises(ConfigurationError, match=r"^settings: bus_auth: "):
        Settings()


def test_all_variables_in_other_letters_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("bus_auth", "off")
    monkeypatch.setenv("Bus_Url", "amqp://localhost")
    with pytest.raises(ConfigurationError, match=r"^settings: Bus_Url: .*BUS_URL.*; bus_auth: "):
        load_settings()


def test_settings_without_the_environment_ignore_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("bus_auth", "off")
    assert ExplicitSettings().auth == "on"


def test_a_test_hides_a_setting_of_the_shell_in_other_letters() -> None:
    shell = {"bus_auth": "off", "BUS_URL": "amqp://x", "BUS_TEST_URL": "y", "HOME": "z"}
    assert shell_settings(shell) == {"bus_auth": "off", "BUS_URL": "amqp://x"}


# --- Bounds of the numbers ---

BOUNDS: dict[str, tuple[float, float]] = {
    "heartbeat": (1, 300),
    "connect_timeout": (0.001, 3600),
    "start_timeout": (0.001, 86_400),
    "request_timeout": (0.001, 86_400),
    "publish_timeout": (0.001, 86_400),
    "message_ttl": (0.001, 366 * 86_400),
    "stop_grace": (0, 86_400),
    "consumer_timeout": (0.001, 100 * 365 * 86_400),
    "delivery_limit": (3, 100),
    "clock_leeway": (0, 300),
    "publish_window": (1, 1_000_000),
    "remembered_messages": (0, 100_000),
    "cache_entries": (0, 1_000_000),
    "cache_bytes": (0, 2**40),
    "health_port": (1, 65_535),
    "job_lease": (1, 3600),
    "cancel_grace": (0, 86_400),
    "retain_succeeded": (0, 366 * 86_400),
    "retain_failed": (0, 366 * 86_400),
    "inbox_retention": (0, 366 * 86_400),
}


def test_every_number_has_bounds_in_the_table() -> None:
    numbers = {
        name
        for name, field in Settings.model_fields.items()
        if field.annotation in {int, float, int | None, float | None}
    }
    # A size has a range of its own, which a test above checks: its text also has a unit.
    assert numbers == {*BOUNDS, "max_message"}


@pytest.mark.parametrize(("name", "bounds"), BOUNDS.items())
def test_a_number_outside_of_its_bounds_is_refused(
    name: str, bounds: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    least, most = bounds
    for inside in (least, most):
        assert getattr(load_settings(**{name: inside}), name) == inside
    for outside in (least - 1, most + 1, 1e18, inf, nan, 10**400):
        with pytest.raises(ConfigurationError, match=f"^settings: BUS_{name.upper()}: must be "):
            load_settings(**{name: outside})
    for text in ("1e18", "1e400", "inf", "nan", "-1", "true", "0x10", "1,5", "9" * 400):
        monkeypatch.setenv(f"BUS_{name.upper()}", text)
        with pytest.raises(ConfigurationError, match=f"^settings: BUS_{name.upper()}: must be "):
            load_settings()


@pytest.mark.parametrize("name", BOUNDS)
def test_a_boolean_is_not_a_number_and_1_5_is_not_a_count(name: str) -> None:
    for value in (True, False):
        with pytest.raises(ConfigurationError, match="must be a number, not a boolean"):
            load_settings(**{name: value})
    if Settings.model_fields[name].annotation not in {float, float | None}:
        with pytest.raises(ConfigurationError, match="must be an integer"):
            load_settings(**{name: 5.5})
