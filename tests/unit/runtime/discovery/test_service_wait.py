"""The wait for a service: which instances fulfil it, and what ends it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from bus.errors import ContractError, PermissionDenied, Unavailable
from bus.messaging.control import Announcement, GetInfo, Ping
from bus.messaging.service_info import ContractInfo, InstanceInfo
from bus.runtime.discovery.service_wait import Requirement, ServiceWait
from bus.transports.memory.virtual_time import VirtualLoop
from tests.polling import until
from tests.unit.runtime.discovery.fake_asker import FakeAsker


def info(
    instance: str = "a", state: str = "ready", *types: str, version: str | None = "1.0"
) -> InstanceInfo:
    contracts = [
        ContractInfo(type=each, kind="request", permission="p", queue="q", digest="d")
        for each in types
    ]
    return InstanceInfo.model_validate(
        {
            "service": "billing",
            "instance": instance,
            "state": state,
            "version": version,
            "started": 1,
            "bus_version": "1",
            "python_version": "3",
            "contracts": contracts,
        }
    )


GET = info("a", "ready", "billing.get.v1", "billing.close.v2")
CASES: list[tuple[str, dict[str, Any], list[InstanceInfo], bool]] = [
    ("billing", {}, [info()], True),
    ("billing", {}, [info(state="not-ready")], False),
    ("billing", {}, [info(state="draining")], False),
    ("billing", {"version": "1.0"}, [info()], True),
    ("billing", {"version": "1.1"}, [info()], False),
    ("billing", {"version": "1.0"}, [info(version=None)], False),
    ("billing", {"instances": 2}, [info()], False),
    ("billing", {"instances": 2}, [info(), info("b")], True),
    ("billing", {"instances": 2}, [info(), info("b", "not-ready")], False),
    ("billing", {"instances": 1}, [info(), info("b", "not-ready")], True),
    ("billing.get.v1", {}, [GET], True),
    ("billing.get.v2", {}, [GET], False),
    ("billing.get", {}, [GET], True),
    ("billing.close", {}, [GET], True),
    ("billing.find.v1", {}, [GET], False),
    ("billing.get.v1", {}, [info()], False),
]


@pytest.mark.parametrize(("text", "options", "records", "is_met"), CASES)
def test_a_wait_ends_when_the_required_instances_are_ready(
    text: str, options: dict[str, Any], records: list[InstanceInfo], is_met: bool
) -> None:
    asker = FakeAsker(records)
    seconds = waited(Requirement.parse(text, **options), asker, limit=5)
    assert (seconds is not None) == is_met
    assert type(asker.asked[0][0]) is (GetInfo if "." in text else Ping)


def waited(
    requirement: Requirement,
    asker: FakeAsker,
    *changes: tuple[float, Callable[[], object]],
    limit: float = 60,
) -> float | None:
    """Return the seconds that a wait takes, in virtual time, or None if it takes `limit`.

    Args:
        requirement: What the caller waits for.
        asker: The asker.
        *changes: Seconds after the start, and a function to call then.
        limit: Maximum seconds.
    """

    async def wait() -> float | None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.skip_waits()
        begin = loop.time()
        for seconds, change in changes:
            loop.call_later(seconds, change)
        try:
            async with asyncio.timeout(limit):
                await ServiceWait(requirement, clock=loop.time).run(asker)
        except TimeoutError:
            return None
        return loop.time() - begin

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(wait())


BILLING, TYPE = Requirement(service="billing"), Requirement.parse("billing.get.v1")


def announced(instance: str = "a") -> Announcement:
    return Announcement(
        service="billing", instance=instance, started=1, state="ready", event="started"
    )


def test_a_wait_for_a_ready_service_ends_at_its_first_answer() -> None:
    assert waited(BILLING, FakeAsker([info()])) == 0


class Silence:
    """Announcements that do not come. As at a broker, only `aclose` ends the queue."""

    is_closed = False

    def __aiter__(self) -> "Silence":
        return self

    async def __anext__(self) -> Announcement:
        return await asyncio.Future()

    async def aclose(self) -> None:
        self.is_closed = True


def test_the_end_of_a_wait_closes_the_queue_of_its_announcements(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asker, silence = FakeAsker(), Silence()
    monkeypatch.setattr(asker, "announcements", lambda: silence)
    assert waited(BILLING, asker, limit=9) is None
    assert silence.is_closed


def test_a_ready_instance_is_found_behind_one_that_is_not_ready() -> None:
    seconds = waited(BILLING, FakeAsker([info("a", "not-ready"), info("b")]))
    assert seconds is not None
    assert seconds <= 2


@pytest.mark.parametrize("requirement", [BILLING, TYPE])
def test_an_announcement_ends_the_wait_at_once(requirement: Requirement) -> None:
    asker = FakeAsker()

    def start() -> None:
        asker.serve([GET])
        asker.announced.put_nowait(announced())

    assert waited(requirement, asker, (20.2, start)) == pytest.approx(20.2)


def test_the_announcement_of_another_service_ends_no_wait() -> None:
    asker = FakeAsker()
    other = announced().model_copy(update={"service": "shipping"})
    assert waited(BILLING, asker, (1.0, lambda: asker.announced.put_nowait(other)), limit=9) is None


def test_an_instance_that_becomes_ready_without_an_announcement_is_found_soon() -> None:
    asker = FakeAsker([info(state="not-ready")])
    seconds = waited(BILLING, asker, (20.0, lambda: asker.serve([info()])))
    assert seconds is not None
    assert 20 <= seconds <= 22


def test_a_wait_continues_while_the_broker_does_not_answer() -> None:
    asker = FakeAsker([info()])
    asker.error = Unavailable("the broker is not connected")
    seconds = waited(BILLING, asker, (20.0, lambda: setattr(asker, "error", None)))
    assert seconds is not None
    assert 20 <= seconds <= 22


def test_a_wait_without_the_right_to_read_announcements_asks() -> None:
    asker = FakeAsker()
    asker.listening_error = PermissionDenied("no right to read")
    seconds = waited(BILLING, asker, (20.0, lambda: asker.serve([info()])))
    assert seconds is not None
    assert 20 <= seconds <= 22


def test_a_wait_without_the_right_to_ask_fails() -> None:
    asker = FakeAsker()
    asker.error = PermissionDenied("no right to ask")
    with pytest.raises(PermissionDenied):
        waited(BILLING, asker)


def test_a_wait_asks_at_most_once_a_second() -> None:
    asker = FakeAsker([info(state="not-ready")])
    assert waited(BILLING, asker, limit=30) is None
    assert len(asker.asked) <= 31


@pytest.mark.parametrize("text", ["Billing", "billing get", "", "bus", "2"])
def test_a_name_that_no_service_can_have_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        Requirement.parse(text)


@pytest.mark.parametrize("text", ["billing", "billing.get", "billing.get.v1"])
def test_a_requirement_is_named_as_the_caller_wrote_it(text: str) -> None:
    assert Requirement.parse(text).subject == text


async def test_the_end_of_a_wait_names_the_instances_that_were_seen() -> None:
    wait = ServiceWait(Requirement(service="billing", instances=2))
    assert wait.describe() == "no instance of billing answered"
    running = asyncio.ensure_future(
        wait.run(FakeAsker([info(), info("b", "draining", version=None)]))
    )
    await until(lambda: "ready" in wait.describe(), "the first answers")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    text = "1 of 2 required instances ready (a: ready, version 1.0; b: draining)"
    assert wait.describe() == text
