"""`bus doctor`: its exit code says whether a service could start."""

import json
import os
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bus.cli import doctor, main
from bus.errors import ConfigurationError, Unavailable
from bus.operations.brokers.select import INSTALL
from bus.security.key_directory import KeyDirectory
from bus.transports.rabbitmq.handshake import BrokerInfo

GRANTS = """
[services.library]
consume = []
[services.reader]
call = []
"""
INFO = BrokerInfo(product="RabbitMQ", version="4.0.5", cluster="rabbit@here", platform="Erlang")


@dataclass
class Machine:
    """A machine with a broker, and with the settings of the service `library`."""

    folder: Path
    keys: KeyDirectory
    patch: pytest.MonkeyPatch
    capture: pytest.CaptureFixture[str]
    has_broker: bool = True

    def set(self, **variables: str) -> None:
        for name, value in variables.items():
            self.patch.setenv(f"BUS_{name.upper()}", value)

    def unset(self, name: str) -> None:
        self.patch.delenv(f"BUS_{name.upper()}")

    def diagnosis(self, *arguments: str) -> tuple[int, str]:
        """Return the exit code and the output of `bus doctor`."""
        with pytest.raises(SystemExit) as ended:
            main(["doctor", *arguments])
        assert isinstance(ended.value.code, int)
        return ended.value.code, self.capture.readouterr().out


@pytest.fixture
def machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Machine:
    keys = KeyDirectory(tmp_path / "keys")
    keys.new("library", "library-1")
    (tmp_path / "grants.toml").write_text(GRANTS, encoding="utf-8")
    new = Machine(tmp_path, keys, monkeypatch, capsys)
    new.set(
        auth="on",
        url="amqp://localhost",
        key=str(keys.key_file("library")),
        jwks=str(keys.set_file),
        grants=str(tmp_path / "grants.toml"),
    )

    async def probe(_url: str) -> BrokerInfo:
        if not new.has_broker:
            raise Unavailable("the broker at localhost:5672 cannot be reached")
        return INFO

    monkeypatch.setattr(doctor, "probe", probe)
    monkeypatch.setattr(doctor, "engine_answers", lambda _: False)
    monkeypatch.setattr(doctor, "find_installation", lambda _: None)
    return new


def test_a_service_that_could_start_is_no_problem(machine: Machine) -> None:
    code, text = machine.diagnosis()
    assert (code, "no problems found" in text) == (0, True)
    assert "service library" in text


@pytest.mark.parametrize("name", ["key", "jwks", "grants"])
def test_a_setting_that_is_missing_is_an_error(name: str, machine: Machine) -> None:
    machine.unset(name)
    code, text = machine.diagnosis()
    assert code == os.EX_CONFIG
    remedy = (
        "Write a grants file" if name == "grants" else "Create keys with `bus keys new SERVICE`"
    )
    assert f"missing: BUS_{name.upper()} is not set, so a service cannot start. {remedy}" in text
    assert text.rstrip().endswith("For a first try, set BUS_AUTH=off instead.")
    assert json.loads(machine.diagnosis("--json")[1])["missing"] == [f"BUS_{name.upper()}"]


def unreadable(machine: Machine) -> None:
    machine.keys.key_file("library").chmod(0o644)


def operator(machine: Machine) -> None:
    machine.keys.new("ida", "ida-1", role="operator")
    machine.set(key=str(machine.keys.key_file("ida")))


def retired(machine: Machine) -> None:
    machine.keys.update("library-1", retired_at=int(time.time()) - 60)


def no_key_set(machine: Machine) -> None:
    machine.keys.set_file.unlink()


def wrong_grants(machine: Machine) -> None:
    (machine.folder / "grants.toml").write_text("[services.library]\ncal = []", encoding="utf-8")


def wrong_encryption(machine: Machine) -> None:
    machine.set(encryption_keys=str(machine.folder / "nowhere.json"))


def empty_directory(machine: Machine) -> None:
    (machine.folder / "empty").mkdir()
    machine.set(key=str(machine.folder / "empty"))


def short_secret(machine: Machine) -> None:
    machine.set(auth="dev", key="short")


def wrong_setting(machine: Machine) -> None:
    machine.set(heartbeat="often")


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (unreadable, "library.key has mode 644"),
        (operator, "BUS_KEY belongs to the operator 'ida', but a service's key is required"),
        (retired, "has no key that is valid now"),
        (no_key_set, "jwks.json cannot be read"),
        (wrong_grants, "unknown key 'cal'"),
        (wrong_encryption, "nowhere.json cannot be read"),
        (empty_directory, "BUS_KEY names a directory without the key of a service"),
        (short_secret, "BUS_KEY must have at least 32 bytes"),
        (wrong_setting, "BUS_HEARTBEAT: "),
    ],
)
def test_a_setting_with_which_no_service_starts_is_a_problem(
    spoil: Callable[[Machine], None], problem: str, machine: Machine
) -> None:
    spoil(machine)
    code, text = machine.diagnosis()
    assert code == os.EX_CONFIG
    (line,) = [line for line in text.splitlines() if line.startswith("problem: ")]
    assert problem in line


def test_a_named_service_is_checked_with_its_own_key(machine: Machine) -> None:
    code, text = machine.diagnosis("reader")
    assert code == os.EX_CONFIG
    assert "BUS_KEY belongs to the service 'library', but this process runs as 'reader'" in text
    machine.keys.new("reader", "reader-1")
    machine.set(key=str(machine.keys.path))
    report = json.loads(machine.diagnosis("reader", "library", "--json")[1])
    assert report["services"] == {"reader": True, "library": True}
    assert machine.diagnosis()[0] == 0, "all services in the directory"


ANNEX = """
from bus import Event, Router, contract

@contract("annex.opened", version=1)
class Opened(Event):
    pass

router = Router("library")

@router.event(Opened)
async def on_opened(event: Opened) -> None: ...
"""


def test_a_router_that_may_not_consume_its_events_is_a_problem(machine: Machine) -> None:
    (machine.folder / "annex_of_the_library.py").write_text(ANNEX, encoding="utf-8")
    machine.patch.chdir(machine.folder)
    machine.patch.setattr(sys, "path", [*sys.path])  # the command adds the folder
    code, text = machine.diagnosis("annex_of_the_library:router")
    assert code == os.EX_CONFIG
    assert "library may not consume annex.opened. Grant it in " in text
    granted = GRANTS.replace("consume = []", 'consume = ["annex.opened"]', 1)
    (machine.folder / "grants.toml").write_text(granted, encoding="utf-8")
    assert machine.diagnosis("annex_of_the_library:router")[0] == 0


def test_a_broker_that_does_not_answer_is_a_problem(machine: Machine) -> None:
    machine.has_broker = False
    code, text = machine.diagnosis()
    assert (code, re.search(r"connection +failed", text) is not None) == (os.EX_UNAVAILABLE, True)


def test_a_service_without_bus_url_needs_a_broker_at_the_default(machine: Machine) -> None:
    machine.unset("url")
    machine.patch.setattr(doctor, "select_broker", refuse)
    assert machine.diagnosis()[0] == 0, "the broker at the default answers"
    machine.has_broker = False
    code, text = machine.diagnosis()
    assert (code, INSTALL in text) == (os.EX_CONFIG, True)


def refuse(*_: Any) -> None:
    raise ConfigurationError(INSTALL)
