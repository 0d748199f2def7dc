"""The service that sends a message from the command line, if `--as` is left out."""

from pathlib import Path

import pytest

from bus import Event, contract
from bus.cli.sender import select_publisher, select_sender
from bus.contracts.contract import Catalog, contract_of
from bus.errors import BusError, ConfigurationError, ContractError
from bus.security.key_directory import KeyDirectory


@contract("library.scanned", version=1, catalog=Catalog())
class Scanned(Event):
    """A book was scanned."""


SCANNED = contract_of(Scanned)


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyDirectory:
    """Return a directory with the keys of a service and an operator. The settings name the set."""
    directory = KeyDirectory(tmp_path / "keys")
    directory.new("library", "library-1")
    directory.new("ida", "ida-1", role="operator")
    monkeypatch.setenv("BUS_AUTH", "on")
    monkeypatch.setenv("BUS_JWKS", str(directory.set_file))
    return directory


def test_the_owner_of_the_key_sends_the_message(
    keys: KeyDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = keys.key_file("library")
    for key in (str(file), file.read_text(encoding="utf-8")):
        monkeypatch.setenv("BUS_KEY", key)
        assert select_sender(None) == select_publisher(SCANNED, None) == "library"
        assert select_sender("reader") == "reader"


def test_the_only_service_in_a_directory_of_keys_sends_the_message(
    keys: KeyDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUS_KEY", str(keys.path))
    assert select_sender(None) == select_publisher(SCANNED, None) == "library"


def test_several_services_in_a_directory_of_keys_are_listed(
    keys: KeyDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.new("reader", "reader-1")
    monkeypatch.setenv("BUS_KEY", str(keys.path))
    with pytest.raises(ConfigurationError, match=r"library, reader\. .* with --as SERVICE\."):
        select_sender(None)
    with pytest.raises(ContractError, match=r"Publish as its owner with --as library\."):
        select_publisher(SCANNED, None)
    keys.new("cli", "cli-1")
    assert select_sender(None) == "cli"


def test_no_service_in_a_directory_of_keys_is_preferred_because_it_may_lack_the_right(
    keys: KeyDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.new("reader", "reader-1")
    monkeypatch.setenv("BUS_KEY", str(keys.path))
    with pytest.raises(ConfigurationError) as raised:
        select_sender(None)
    assert "--as library" not in str(raised.value)
    assert "--as reader" not in str(raised.value)


def test_the_key_of_another_service_publishes_nothing(
    keys: KeyDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.new("reader", "reader-1")
    monkeypatch.setenv("BUS_KEY", str(keys.key_file("reader")))
    with pytest.raises(
        ContractError,
        match=r"so reader \(BUS_KEY\) cannot publish it\. Set BUS_KEY to the key of library\.",
    ):
        select_publisher(SCANNED, None)


@pytest.mark.parametrize("auth", ["dev", "off"])
def test_without_keys_the_command_line_sends_the_message(
    auth: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUS_AUTH", auth)
    monkeypatch.setenv("BUS_KEY", "a secret of at least thirty-two bytes")
    assert select_sender(None) == "cli"
    with pytest.raises(ContractError, match="--as library"):
        select_publisher(SCANNED, None)
    with pytest.raises(ContractError, match="so reader cannot publish it"):
        select_publisher(SCANNED, "reader")


@pytest.mark.parametrize(
    ("owner", "problem"),
    [
        ("ida", r"belongs to the operator 'ida', but a service's key is required\. Create one"),
        ("stranger", "BUS_JWKS has no public key of a service that matches BUS_KEY"),
    ],
)
def test_a_key_that_belongs_to_no_service_is_refused(
    owner: str,
    problem: str,
    keys: KeyDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    elsewhere = KeyDirectory(tmp_path / "elsewhere")
    elsewhere.new("stranger", "stranger-1")
    file = (keys if owner == "ida" else elsewhere).key_file(owner)
    monkeypatch.setenv("BUS_KEY", str(file))
    with pytest.raises(BusError, match=problem):
        select_sender(None)
