"""Tests of the check of the bindings of `bus watch`, without a broker."""

from collections.abc import Iterable
from typing import cast

import pytest

from bus.cli.watch import session
from bus.cli.watch.session import Watch, WatchOptions
from bus.errors import Unavailable
from bus.messaging.envelope import Envelope
from bus.messaging.topology.model import Binding
from bus.messaging.topology.names import JOBS
from bus.operations.tap_bindings import Key
from bus.settings import Settings
from bus.transports.rabbitmq.tap import Tap, TappedMessage

TYPE, QUEUE = "press.print.v1", "press.jobs.print.v1"


class BoundKeys:
    """The part of a tap that a check of the bindings uses."""

    def __init__(self) -> None:
        self.bound = set[Key]()

    def check(self) -> None:
        """Do nothing, because this tap never ends."""

    async def bind(self, keys: Iterable[Key]) -> None:
        self.bound |= {*keys}

    async def unbind(self, keys: Iterable[Key]) -> None:
        self.bound -= {*keys}


class Broker:
    """The bindings of a broker, or its error."""

    def __init__(self) -> None:
        self.bindings: frozenset[Binding] | Exception = frozenset(
            {Binding(exchange=JOBS, queue=QUEUE, routing_key=TYPE)}
        )

    async def queue_bindings(self, _settings: Settings) -> frozenset[Binding]:
        if isinstance(self.bindings, Exception):
            raise self.bindings
        return self.bindings


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    broker = Broker()
    monkeypatch.setattr(session, "queue_bindings", broker.queue_bindings)
    return broker


async def test_a_failed_check_does_not_forget_the_jobs_before_it(broker: Broker) -> None:
    keys, said = BoundKeys(), list[str]()
    tap = cast("Tap", keys)
    watch = Watch(Settings(auth="off"), WatchOptions(), lambda _: None, said.append)
    await watch._check(tap)
    assert keys.bound == {(JOBS, TYPE)}

    for id_ in ("first", "second"):
        envelope = Envelope(id=id_, type=TYPE, role="job", source="desk")
        watch._take(TappedMessage(envelope=envelope, exchange=JOBS, size=0))
        broker.bindings = Unavailable("the management API does not answer")
        await watch._check(tap)
    broker.bindings = frozenset()
    await watch._check(tap)

    (sentence,) = said
    assert "2 jobs may have reached no service. Submit them again: first, second" in sentence
    assert keys.bound == set()


async def test_a_watch_that_left_requests_and_jobs_says_when_it_watches_them_again(
    broker: Broker,
) -> None:
    keys, said = BoundKeys(), list[str]()
    tap = cast("Tap", keys)
    watch = Watch(Settings(auth="off"), WatchOptions(), lambda _: None, said.append)
    await watch._check(tap)
    bindings, broker.bindings = broker.bindings, Unavailable("the API does not answer")
    for _ in range(session.MAX_FAILED_CHECKS + 1):
        await watch._check(tap)
    assert keys.bound == set()

    broker.bindings = bindings
    for _ in range(2):
        await watch._check(tap)
    assert keys.bound == {(JOBS, TYPE)}
    assert [each.partition(",")[0] for each in said] == [
        "requests and jobs are not watched any more",
        "requests and jobs are watched from now on",
    ]
