"""The settings of the transcription worker."""

from math import inf, nan

import pytest

from bus.errors import ConfigurationError
from workers.transcription.settings import load_settings


def test_defaults_need_no_environment() -> None:
    settings = load_settings()
    assert settings.engine == "pocketsphinx"
    assert settings.connect_timeout < 5


def test_a_bad_variable_is_named_and_its_value_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSCRIPTION_MAX_BYTES", "much")
    with pytest.raises(ConfigurationError, match="TRANSCRIPTION_MAX_BYTES") as raised:
        load_settings()
    assert "much" not in str(raised.value)


def test_lists_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSCRIPTION_ROOTS", '["/recordings"]')
    monkeypatch.setenv("TRANSCRIPTION_HOSTS", '["store.example"]')
    settings = load_settings()
    assert str(settings.roots[0]) == "/recordings"
    assert settings.hosts == {"store.example"}


def test_hosts_have_one_spelling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSCRIPTION_HOSTS", '["Store.EXAMPLE.", "[0:0::1]", "Bücher.example"]')
    assert load_settings().hosts == {"store.example", "::1", "xn--bcher-kva.example"}


@pytest.mark.parametrize("host", ["store.example:443", "https://store.example", "*.example", ""])
def test_an_entry_that_is_no_host_is_refused_at_the_start(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("TRANSCRIPTION_HOSTS", f'["good.example", "{host}"]')
    with pytest.raises(ConfigurationError, match="TRANSCRIPTION_HOSTS") as raised:
        load_settings()
    assert "without scheme, port, path" in str(raised.value)
    assert "example" not in str(raised.value)


def test_a_variable_in_other_letters_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TRANSCRIPTION_HOSTS", "[]")
    monkeypatch.setenv("transcription_Hosts", '["store.example"]')
    with pytest.raises(ConfigurationError, match=r"^settings: transcription_Hosts: .*_HOSTS, and"):
        load_settings()


@pytest.mark.parametrize(
    "name",
    [
        "max_bytes",
        "max_seconds",
        "fetch_timeout",
        "connect_timeout",
        "start_timeout",
        "kept_transcripts",
    ],
)
def test_a_number_is_not_endless_negative_or_a_boolean(name: str) -> None:
    for value in (1e18, inf, nan, -1, 0, True, "1e400"):
        with pytest.raises(ConfigurationError, match=f"TRANSCRIPTION_{name.upper()}: "):
            load_settings(**{name: value})
