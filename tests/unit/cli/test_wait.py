"""`bus wait`: its result, its timeout, and a broker that starts later."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bus import Settings
from bus.cli import wait
from bus.cli.errors import exit_code
from bus.cli.wait import describe_ready, wait_until_ready
from bus.errors import (
    BusError,
    ConfigurationError,
    ContractError,
    DeadlineExceeded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)
from bus.messaging.control import GetInfo, Ping, Question
from bus.messaging.service_info import InstanceState, InstanceStats
from bus.runtime.discovery.live_view import MISSED_PINGS
from bus.runtime.discovery.service_wait import Requirement
from bus.transports.memory.virtual_time import VirtualLoop
from tests.unit.runtime.discovery.fake_asker import FakeAsker
from tests.unit.runtime.discovery.records import info, served, stats, view_of

BILLING = Requirement(service="billing")
SETTINGS = Settings(auth="off")


def run(
    asker: FakeAsker,
    requirement: Requirement = BILLING,
    *,
    timeout: float = 60,
    opening: Callable[[], None] = lambda: None,
    monkeypatch: pytest.MonkeyPatch,
    **settings: Any,
) -> tuple[str, float]:
    """Return the line about ready instances, and the seconds of the wait in virtual time.

    `opening` is called for each connection, and can raise the error of the broker.
    """

    @asynccontextmanager
    async def open_asker(_: Settings, *, service: str | None) -> AsyncIterator[FakeAsker]:
        opening()
        assert service is None
        yield asker

    async def timed() -> tuple[str, float]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.skip_waits()
        begin = loop.time()
        ready, others = await wait_until_ready(
            SETTINGS.model_copy(update=settings), requirement, timeout
        )
        return describe_ready(requirement, ready, others), loop.time() - begin

    monkeypatch.setattr(wait, "open_asker", open_asker)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(timed())


def test_a_ready_service_ends_the_command_with_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    asker = FakeAsker([stats("a"), stats("b")])
    assert run(asker, monkeypatch=monkeypatch) == ("billing is ready: 1 instance, version 1.0", 0)


def test_two_instances_of_two_versions_are_named() -> None:
    ready = view_of(stats("a"), stats("b", version="1.1")).live()
    assert describe_ready(BILLING, ready, []) == (
        "billing is ready: 2 instances, version 1.0 and 1.1"
    )


def test_the_command_waits_for_a_broker_that_has_not_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = iter(range(10))

    def opening() -> None:
        if next(failures, None) is not None:
            raise Unavailable("connection refused")

    line, seconds = run(FakeAsker([stats()]), opening=opening, monkeypatch=monkeypatch)
    assert line.startswith("billing is ready")
    assert 1 < seconds < 20


def test_the_timeout_is_kept_and_the_error_says_what_was_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asker = FakeAsker([stats("a", state="not-ready")])
    with pytest.raises(DeadlineExceeded) as raised:
        run(asker, timeout=7, monkeypatch=monkeypatch)
    assert exit_code(raised.value) == 75
    assert str(raised.value) == (
        "billing: not ready within 7 s: 0 of 1 required instance ready "
        "(a: not-ready, version 1.0). "
        "Look at `bus services billing` and at the log of these instances."
    )


def test_a_wait_for_a_version_names_the_other_versions_that_are_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asker = FakeAsker([stats("a", version="1.5"), stats("b", version="1.4", state="not-ready")])
    line, _ = run(asker, Requirement(service="billing", version="1.5"), monkeypatch=monkeypatch)
    assert line == ("billing is ready: 1 instance, version 1.5; also live: 1 instance, version 1.4")


def test_a_wait_for_all_instances_ends_when_the_other_versions_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rounds = 0

    def records(_: object) -> list[InstanceStats]:
        nonlocal rounds
        rounds += 1
        new = stats("a", version="1.5")
        return [new, stats("b", version="1.4")] if rounds < 4 else [new]

    requirement = Requirement(service="billing", version="1.5", all=True)
    line, seconds = run(FakeAsker(records), requirement, monkeypatch=monkeypatch)
    assert line == "billing is ready: 1 instance, version 1.5"
    assert rounds == 3 + MISSED_PINGS
    assert seconds > 3


ALL = Requirement(service="billing", version="1.5", all=True)


@pytest.mark.parametrize(
    ("requirement", "records", "text"),
    [
        pytest.param(
            Requirement(service="billing"),
            [],
            "no instance of billing answered. Check that its workers run, that they use the "
            "broker in BUS_URL, and that they have BUS_AUTH=off as this command has.",
            id="silence",
        ),
        pytest.param(
            Requirement(service="billing", version="1.5"),
            [stats("a", version="1.4")],
            "0 of 1 required instance ready (a: ready, version 1.4). "
            "Start instances with BUS_SERVICE_VERSION=1.5, or correct --version.",
            id="another version",
        ),
        pytest.param(
            Requirement.parse("billing.get.v2"),
            [info("a", served())],
            "0 of 1 required instance ready (a: ready, does not serve billing.get.v2). "
            "Check the type, or start instances with a router that serves it.",
            id="another type",
        ),
        pytest.param(
            Requirement(service="billing", instances=2),
            [stats("a")],
            "1 of 2 required instances ready (a: ready, version 1.0). "
            "Start more instances, or correct --instances.",
            id="too few",
        ),
        pytest.param(
            ALL,
            [stats("a", version="1.5"), stats("b", version="1.4")],
            "1 of 1 required instance ready, and 1 instance of other versions live "
            "(a: ready, version 1.5; b: ready, version 1.4). "
            "Stop the instances of other versions, or leave --all out.",
            id="old instances",
        ),
    ],
)
def test_the_timeout_advises_what_fits_its_cause(
    requirement: Requirement,
    records: list[InstanceState],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(DeadlineExceeded) as raised:
        run(FakeAsker(records), requirement, timeout=5, monkeypatch=monkeypatch)
    assert str(raised.value).partition(" within 5 s: ")[2] == text


def test_all_without_a_version_is_refused() -> None:
    with pytest.raises(ContractError, match=r"--all needs a version\. Add --version"):
        wait.command("billing", all_=True)


def test_the_timeout_names_an_instance_that_serves_another_version(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asker = FakeAsker([info("a", served())])
    with pytest.raises(DeadlineExceeded, match=r"\(a: ready, does not serve billing\.get\.v2\)"):
        run(asker, Requirement.parse("billing.get.v2"), timeout=5, monkeypatch=monkeypatch)


def test_the_timeout_suggests_a_live_service_with_a_similar_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(DeadlineExceeded) as raised:
        run(FakeAsker([stats()]), Requirement(service="biling"), timeout=5, monkeypatch=monkeypatch)
    assert str(raised.value) == (
        "biling: not ready within 5 s: no instance of biling answered; did you mean 'billing'?"
    )


def test_the_timeout_names_a_broker_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def opening() -> None:
        raise Unavailable("the broker at localhost:1 cannot be reached. Check that it is running.")

    with pytest.raises(DeadlineExceeded) as raised:
        run(FakeAsker(), timeout=5, opening=opening, monkeypatch=monkeypatch)
    assert str(raised.value) == (
        "billing: not ready within 5 s: the broker at localhost:1 cannot be reached. "
        "Check that it is running."
    )


DENIED = (
    "the service 'shop' may not read the state of services. "
    'Grant it in grants.toml: [services.shop] control = ["read"]'
)


def test_without_the_right_to_read_the_error_names_a_wait_that_does_not_need_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def records(question: Question[Any]) -> list[InstanceState]:
        if isinstance(question, GetInfo):
            raise PermissionDenied(DENIED)
        return [stats()]

    with pytest.raises(PermissionDenied) as raised:
        run(FakeAsker(records), Requirement.parse("billing.get.v1"), monkeypatch=monkeypatch)
    assert str(raised.value) == (
        f"billing.get.v1: {DENIED}. Or wait for the service without the type: `bus wait billing`."
    )
    line, _ = run(FakeAsker(records), monkeypatch=monkeypatch)
    assert line == "billing is ready: 1 instance, version 1.0"


def test_without_any_right_the_error_names_only_the_grant(monkeypatch: pytest.MonkeyPatch) -> None:
    asker = FakeAsker()
    asker.error = PermissionDenied(DENIED)
    for requirement in (BILLING, Requirement.parse("billing.get.v1")):
        with pytest.raises(PermissionDenied) as raised:
            run(asker, requirement, monkeypatch=monkeypatch)
        assert str(raised.value) == DENIED


def test_the_timeout_names_the_right_if_instances_answer_only_that_they_are_alive(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asker = FakeAsker(lambda question: [stats()] if isinstance(question, Ping) else [])
    with pytest.raises(DeadlineExceeded) as raised:
        run(asker, Requirement.parse("billing.get.v1"), timeout=5, monkeypatch=monkeypatch)
    assert str(raised.value) == (
        "billing.get.v1: not ready within 5 s: 1 instance of billing is alive, but no instance "
        "answered the question for its contracts. Grant the right to read to the key of this "
        "command, or wait for the service without the type: `bus wait billing`."
    )


def test_with_keys_the_timeout_names_the_rights_if_no_instance_has_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(DeadlineExceeded) as raised:
        run(FakeAsker(), timeout=5, monkeypatch=monkeypatch, auth="on")
    assert str(raised.value) == (
        "billing: not ready within 5 s: no instance of billing answered. "
        "Check that its workers run, that they use the broker in BUS_URL, and that they have "
        "BUS_AUTH=on as this command has. "
        "Check that the key of this command has the right to call this service, or to read."
    )


@pytest.mark.parametrize("error", [Unauthenticated("wrong password"), PermissionDenied("no right")])
def test_an_error_that_no_wait_can_repair_ends_the_command(
    error: BusError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opening() -> None:
        raise error

    with pytest.raises(type(error)):
        run(FakeAsker(), opening=opening, monkeypatch=monkeypatch)


def test_discovery_that_is_off_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"Set BUS_DISCOVERY=on\."):
        run(FakeAsker(), monkeypatch=monkeypatch, discovery="off")


def test_a_long_wait_reports_each_reason_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DeadlineExceeded):
        run(FakeAsker(), timeout=30, monkeypatch=monkeypatch)
    assert capsys.readouterr().err.splitlines() == [
        "waiting for billing: no instance of billing answered"
    ]
