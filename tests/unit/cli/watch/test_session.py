"""Tests of the check of the bindings of `bus watch`, without a broker."""

from collections.abc import Iterable
from typing import cast

import pytest

from bus.cli.watch import session
from bus.cli.watch.session import Watch, WatchOptions
from bus.errors import Unavailable
from bus.messaging.topology.model import Binding
from bus.messaging.topology.names import REQUESTS
from bus.operations.tap_bindings import Key
from bus.settings import Settings
from bus.transports.rabbitmq.tap import Tap

TYPE, QUEUE = "press.print.v1", "press.requests.print.v1"


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
            {Binding(exchange=REQUESTS, queue=QUEUE, routing_key=TYPE)}
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


async def test_a_watch_that_left_requests_says_when_it_watches_them_again(
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
    assert keys.bound == {(REQUESTS, TYPE)}
    assert [each.partition(",")[0] for each in said] == [
        "requests are not watched any more",
        "requests are watched from now on",
    ]
