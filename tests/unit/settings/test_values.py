"""How the values of environment variables are read."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from bus.errors import ConfigurationError
from bus.messaging.variable_values import environment_value, strip_value
from bus.settings import EnvironmentSettings, Settings, load_settings
from tests.integration.certificates import certificates
from workers.documents.settings import DocumentsSettings
from workers.transcription.settings import TranscriptionSettings

CLASSES: list[type[EnvironmentSettings]] = [Settings, TranscriptionSettings, DocumentsSettings]
VARIABLES = [
    (settings, field, f"{settings.model_config['env_prefix']}{field.upper()}")
    for settings in CLASSES
    for field in settings.model_fields
    # They have one variable for each value: see test_services.py and test_call_policies.py.
    if field not in {"services", "service_defaults"}
]
IDS = [name for _, _, name in VARIABLES]
BLANKS = ["", " ", "\t\r\n", "\N{NO-BREAK SPACE}", "\N{ZERO WIDTH NO-BREAK SPACE} "]
PADDED = [" {}", "{} ", "{}\r\n", "\N{NO-BREAK SPACE}{}\N{IDEOGRAPHIC SPACE}", "\ufeff{}\n"]
VALUES = {
    "BUS_URL": "amqp://user:secret@broker:5673/vhost",
    "BUS_MANAGEMENT_URL": "https://broker:15671/api",
    "BUS_TOPOLOGY": "verify",
    "BUS_DISCOVERY": "off",
    "BUS_LOAD_SHEDDING": "off",
    "BUS_SERVICE_VERSION": "1.2.3",
    "BUS_REQUEST_QUEUE": "quorum",
    "BUS_FASTLANE": "off",
    "BUS_MAX_MESSAGE": "32 MiB",
    "BUS_HEALTH_HOST": "0.0.0.0",
    "BUS_AUTH": "off",
    "BUS_KEY": "keys/library.key",
    "BUS_STORE": "postgresql://library:secret@db.example/library",
    "BUS_JWKS": "https://keys.example/jwks.json",
    "BUS_GRANTS": "grants.toml",
    "BUS_ENCRYPTION_KEYS": '{"keys": []}',
    "BUS_ENCRYPT": "everything",
    "BUS_OPERATOR_KEY": "-----BEGIN PRIVATE KEY-----",
    "BUS_LOG_LEVEL": "debug",
    "BUS_LOG_MESSAGES": "info",
    "BUS_LOG_FORMAT": "json",
    "BUS_TRACES": "off",
    "BUS_DEBUG": "0",
    "BUS_CHAOS": "billing.quote: duplicate@2%; for=10m",
    "TRANSCRIPTION_ENGINE": "faster-whisper",
    "TRANSCRIPTION_MODEL_DIR": "/models",
    "TRANSCRIPTION_PROXY": "http://proxy",
    "TRANSCRIPTION_ROOTS": '["/recordings"]',
    "TRANSCRIPTION_HOSTS": '["files.example"]',
    "DOCUMENTS_FOLDER": "papers",
    "DOCUMENTS_CLINIC_NAME": "The Other Clinic",
    "DOCUMENTS_CLINIC_ADDRESS": "1 Long Road",
    "DOCUMENTS_PAGE_SIZE": "letter",
    "DOCUMENTS_TIMEZONE": "Europe/Athens",
    "DOCUMENTS_MAX_MEMORY": "400000000",
}
"""A value of each setting that is not a plain number, other than the default."""
FILES = {
    "BUS_PASSWORD_FILE": "password",
    "BUS_STORE_PASSWORD_FILE": "password",
    "BUS_CA_FILE": "ca.pem",
    "BUS_SERVICES_FILE": "services.toml",
}
CERTIFICATE = ("BUS_CLIENT_CERTIFICATE", "BUS_CLIENT_KEY")
ALONE = [row for row in VARIABLES if row[2] not in CERTIFICATE]
"""The variables without the certificate and its key, which are read together."""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in IDS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files that settings name."""
    path = tmp_path_factory.mktemp("settings")
    (path / "password").write_text("secret\n")
    (path / "services.toml").write_text("[services.billing]\ntimeout = 3\n")
    made = certificates(path / "made", "localhost")
    (path / "ca.pem").write_bytes(Path(made.authority).read_bytes())
    return path


def read(settings: type[EnvironmentSettings], field: str) -> Any:
    value = getattr(settings(), field)
    return value.get_secret_value() if isinstance(value, SecretStr) else value


@pytest.mark.parametrize(("settings", "field", "name"), VARIABLES, ids=IDS)
def test_an_empty_variable_is_not_set(
    settings: type[EnvironmentSettings], field: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    default = read(settings, field)
    for blank in BLANKS:
        monkeypatch.setenv(name, blank)
        assert read(settings, field) == default


@pytest.mark.parametrize(("settings", "field", "name"), ALONE, ids=[row[2] for row in ALONE])
def test_space_around_the_value_of_a_variable_does_not_count(
    settings: type[EnvironmentSettings],
    field: str,
    name: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = str(folder / FILES[name]) if name in FILES else VALUES.get(name, "7")
    if name == "BUS_CHAOS":
        monkeypatch.setenv("BUS_AUTH", "off")  # with `on` it is refused
    default = read(settings, field)
    monkeypatch.setenv(name, value)
    plain = read(settings, field)
    assert plain != default or name == "BUS_DEBUG"
    for padded in PADDED:
        monkeypatch.setenv(name, padded.format(value))
        assert read(settings, field) == plain


def test_space_around_the_files_of_a_certificate_does_not_count(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = certificates(folder / "client", "localhost")
    monkeypatch.setenv("BUS_CLIENT_CERTIFICATE", f" {made.certificate}\r\n")
    monkeypatch.setenv("BUS_CLIENT_KEY", f"\t{made.key} ")
    settings = load_settings()
    assert (settings.client_certificate, settings.client_key) == (
        Path(made.certificate),
        Path(made.key),
    )


def test_an_empty_value_in_code_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="BUS_URL"):
        load_settings(url="")
    with pytest.raises(ConfigurationError, match="BUS_MAX_MESSAGE"):
        load_settings(max_message="")


@pytest.mark.parametrize("secret", [f"{'s' * 32}\n", f" {'s' * 32}"])
def test_a_shared_secret_with_space_around_it_is_refused_by_name(
    secret: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUS_KEY", secret)
    monkeypatch.setenv("BUS_AUTH", "dev")
    with pytest.raises(ConfigurationError, match=r"^settings: BUS_KEY: the secret must not") as e:
        load_settings()
    assert "sss" not in str(e.value)


def test_a_shared_secret_of_spaces_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_KEY", " " * 40)
    assert load_settings(auth="dev").key is None


def test_white_space_inside_of_a_value_stays() -> None:
    assert strip_value(" \ufeff\t a  b \u200b\r\n") == "a  b"
    assert environment_value({"BUS_TEST_IMAGE": " rabbitmq:4 "}, "BUS_TEST_IMAGE") == "rabbitmq:4"
    assert environment_value({}, "BUS_TEST_IMAGE") is None


class Shop(EnvironmentSettings):
    """Settings of a user's program, without a prefix."""

    shop_name: str = "shop"
    shop_rooms: tuple[str, ...] = ()


def test_the_settings_of_a_users_program_are_read_by_the_same_rule(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SHOP_NAME", " ")
    monkeypatch.setenv("SHOP_ROOMS", ' ["cellar"]\r\n')
    assert (Shop().shop_name, Shop().shop_rooms) == ("shop", ("cellar",))


# --- Arguments that are not fields ---


def test_an_argument_that_is_not_a_field_names_the_nearest_one() -> None:
    text = r"^settings: heartbaet is not a field of Settings; did you mean 'heartbeat'\? Correct "
    with pytest.raises(ConfigurationError, match=text):
        Settings(heartbaet=5)  # type: ignore[call-arg]
    with pytest.raises(ConfigurationError, match=text):
        load_settings(heartbaet=5)


def test_each_argument_that_is_not_a_field_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"foo is not a .*\. roots is not a field of Doc"):
        DocumentsSettings(foo=1, roots=())  # type: ignore[call-arg]


@pytest.mark.parametrize("name", ["BUS_HEARTBEAT", "Heartbeat", "HEARTBEAT", "BUS_heartbaet"])
def test_an_argument_with_the_name_of_a_variable_or_in_other_letters_names_the_field(
    name: str,
) -> None:
    text = f"^settings: {name} is not a field of Settings; did you mean 'heartbeat'\\? Correct"
    for given in ({name: 5}, {name: 5, "heartbeat": 7}):
        with pytest.raises(ConfigurationError, match=text):
            load_settings(**given)


def test_the_options_of_pydantic_are_not_taken_for_fields(tmp_path: Path) -> None:
    (tmp_path / "given.env").write_text("BUS_HEARTBEAT=5")
    file = tmp_path / "given.env"
    assert Settings(_env_file=file).heartbeat == 5  # type: ignore[call-arg]


class Open(Settings):
    model_config = SettingsConfigDict(extra="allow")


def test_a_class_that_allows_other_arguments_gets_them() -> None:
    assert Open(heartbeat=5, foo=1).foo == 1  # type: ignore[call-arg, attr-defined]
