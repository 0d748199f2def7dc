import logging
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import SecretStr

from bus.errors import BusError, Unavailable
from bus.security.secret_files import PasswordFile
from bus.transports.rabbitmq.credential_refresh import RETRY_REFUSED_SECONDS, CredentialRefresher

OLD, NEW = "the-old-one", "the-new-one"


@dataclass
class Connection:
    """A fake connection that records the passwords that it received."""

    name: str
    is_up: bool = True
    current_password: SecretStr | None = field(default_factory=lambda: SecretStr(OLD))
    prepared: str = ""
    trouble: BusError | None = None
    told: list[str] = field(default_factory=list)

    def use_password_on_reconnect(self, password: SecretStr) -> None:
        self.prepared = password.get_secret_value()

    async def update_secret(self, password: SecretStr) -> None:
        self.told.append(password.get_secret_value())
        if self.trouble is not None:
            raise self.trouble
        self.current_password = password


@dataclass
class World:
    """A password file, two open connections, one that is down, and a fake broker.

    The test sets whether the broker accepts a password.
    """

    path: Path
    accepts: bool = True
    silent: bool = False
    now: float = 0.0
    tried: list[str] = field(default_factory=list)
    connections: list[Connection] = field(
        default_factory=lambda: [
            Connection("one"),
            Connection("two"),
            Connection("down", is_up=False),
        ]
    )

    def __post_init__(self) -> None:
        self.path.write_text(OLD)
        self.renewal = CredentialRefresher(
            PasswordFile(self.path), self.connections, trial=self.trial, timer=lambda: self.now
        )

    async def trial(self, password: SecretStr) -> bool:
        self.tried.append(password.get_secret_value())
        if self.silent:
            raise Unavailable("no answer in time")
        return self.accepts

    @property
    def told(self) -> list[list[str]]:
        return [each.told for each in self.connections]


@pytest.fixture
def world(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> World:
    caplog.set_level(logging.INFO)
    return World(tmp_path / "token")


async def test_while_the_file_stays_the_same_nobody_is_asked_and_nobody_told(world: World) -> None:
    for _ in range(3):
        await world.renewal.check_file()
    assert (world.tried, world.told) == ([], [[], [], []])


async def test_a_new_password_is_tried_once_and_then_told_to_each_open_connection_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.renewal.check_file()
    world.path.write_text(NEW)
    for _ in range(3):
        await world.renewal.check_file()
    assert (world.tried, world.told) == ([NEW], [[NEW], [NEW], []])
    assert [each.prepared for each in world.connections] == [NEW] * 3
    assert caplog.messages == [
        f"{each.name}: the password was renewed" for each in world.connections[:2]
    ]


async def test_a_connection_that_came_up_with_the_new_password_is_not_told(world: World) -> None:
    world.path.write_text(NEW)
    world.connections[0].current_password = SecretStr(NEW)
    await world.renewal.check_file()
    assert world.told == [[], [NEW], []]


async def test_a_refused_password_is_told_to_nobody_and_warned_of_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.path.write_text(NEW)
    world.accepts = False
    for _ in range(3):
        await world.renewal.check_file()
    assert world.tried == [NEW], "not again and again: the broker counts failures"
    world.now += RETRY_REFUSED_SECONDS
    await world.renewal.check_file()
    assert (world.tried, world.told) == ([NEW, NEW], [[], [], []])
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert not any(secret in str(vars(warning)) for secret in (OLD, NEW))


async def test_a_refused_password_is_sent_when_the_broker_accepts_it_and_the_next_one_at_once(
    world: World,
) -> None:
    world.path.write_text(NEW)
    world.accepts = False
    await world.renewal.check_file()
    world.accepts = True
    world.now += RETRY_REFUSED_SECONDS
    await world.renewal.check_file()
    assert world.told == [[NEW], [NEW], []]
    world.accepts = False
    world.path.write_text("wrong")
    await world.renewal.check_file()
    world.accepts = True
    world.path.write_text("right")
    await world.renewal.check_file()
    assert world.told == [[NEW, "right"], [NEW, "right"], []]


async def test_a_broker_that_does_not_answer_is_asked_again_at_the_next_look_and_that_is_said_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.path.write_text(NEW)
    world.silent = True
    for _ in range(3):
        await world.renewal.check_file()
    assert world.told == [[], [], []]
    assert caplog.messages == [
        f"{world.path}: the new password could not be tested (no answer in time); trying again"
    ]
    world.silent = False
    await world.renewal.check_file()
    assert world.told == [[NEW], [NEW], []]


async def test_one_connection_that_takes_nothing_keeps_no_other_waiting_and_is_told_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.path.write_text(NEW)
    world.connections[0].trouble = Unavailable("renewing the password: no answer in time")
    for _ in range(3):
        await world.renewal.check_file()
    assert world.told == [[NEW] * 3, [NEW], []]
    (warning,) = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert warning == (
        f"{world.connections[0].name}: the new password was not accepted "
        "(renewing the password: no answer in time); trying again"
    )
    world.connections[0].trouble = None
    await world.renewal.check_file()
    await world.renewal.check_file()
    assert world.told == [[NEW] * 4, [NEW], []]
    assert NEW not in str([vars(record) for record in caplog.records])


async def test_a_file_that_is_halfway_written_is_told_to_nobody(world: World) -> None:
    await world.renewal.check_file()
    world.path.write_text("")
    await world.renewal.check_file()
    assert (world.tried, world.told) == ([], [[], [], []])
