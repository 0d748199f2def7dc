"""Fakes of a broker and of time for the unit tests."""

import asyncio
import functools
import selectors
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from typing_extensions import override

from bus.contracts.contract import Contract, Event, Job, JobClass, Message, Request
from bus.messaging.envelope import Envelope, MessageRole
from bus.messaging.handler import Handler
from bus.messaging.ports.inbox import Inbox
from bus.messaging.ports.transport import (
    Accepted,
    ConsumerHandle,
    Delivery,
    PublishOutcome,
    ReturnListener,
)
from bus.messaging.topology.addresses import Address
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.model import Queue, Topology
from bus.runtime.endpoint_state import EndpointState
from bus.runtime.job_handle import PendingJob
from bus.runtime.poison_isolation import CandidateQueue
from bus.runtime.receiver import Receiver
from bus.runtime.router import Router
from bus.runtime.server import receiver_for
from bus.runtime.service_activator import ServiceStack
from bus.runtime.service_runtime import ServiceRuntime
from bus.security.anonymous import OpenGuard
from bus.security.endpoint_guard import EndpointGuard
from bus.security.identity import ServiceIdentity
from bus.security.message_security import NO_SECURITY, MessageSecurity
from bus.security.signer import Signer
from bus.security.verifier import Verifier
from bus.settings import Settings, load_settings
from bus.storage.memory.inbox import MemoryInbox

NOW = 1_700_000_000.0
"""Time of every injected clock, in seconds since the epoch."""
LIMIT = 10
"""Number of lost deliveries after which a message is dead-lettered."""


def raised(error: BaseException) -> BaseException:
    """Raise an error, and return it with its traceback."""
    try:
        raise error  # noqa: TRY301 - for its traceback
    except BaseException as caught:  # noqa: BLE001 - it is returned
        return caught


def failed_far_away(class_name: str) -> BaseException:
    """Return an error whose frames have long names, in letters of four bytes."""
    wide = "\U00020000" * 200
    text = f"def {wide}(depth):\n    assert depth\n    {wide}(depth - 1)"
    code: dict[str, Any] = {}
    exec(compile(text, f"/{wide * 10}.py", "exec"), code)
    try:
        code[wide](100)
    except AssertionError as failure:
        error: Exception = type(class_name, (Exception,), {})()
        return error.with_traceback(failure.__traceback__)
    raise AssertionError("the code has not failed")


class _Leap(selectors.DefaultSelector):
    """Selector that never waits, and moves time to the next timer."""

    now = 0.0

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Event loop on virtual time, which jumps when every task is waiting."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)

    @override
    def time(self) -> float:
        return self._leap.now


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an async test on virtual time; it fails if an exception was never retrieved."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        unnoticed: list[dict[str, Any]] = []

        async def noticing() -> None:
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: unnoticed.append(context)
            )
            await test(*args, **kwargs)

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(noticing())
        assert unnoticed == []

    return run


async def settle_down() -> None:
    """Run all tasks that can continue without waiting for time to pass."""
    for _ in range(20):
        await asyncio.sleep(0)


def envelope(
    type_: str = "ledger.add.v1", *, role: MessageRole = "request", **attributes: Any
) -> Envelope:
    known: dict[str, Any] = {
        "id": "m-1",
        "source": "office",
        "body": b"{}",
        "correlation_id": "c-1",
    }
    return Envelope(type=type_, role=role, **{**known, **attributes})


@dataclass
class FakeDelivery:
    envelope: Envelope
    redelivered: bool = False
    alive: bool = True
    acks: int = 0
    requeues: int = 0
    counted: int = 0
    """Number of requeues that count toward the delivery limit."""
    broker_headers: Mapping[str, Any] = field(default_factory=dict)
    rejects: int = 0

    @property
    def is_open(self) -> bool:
        return self.alive

    async def ack(self) -> bool:
        if self.alive and not self.settled:
            self.acks += 1
        return self.alive

    async def requeue(self, *, counts: bool = False) -> bool:
        if self.alive and not self.settled:
            self.requeues += 1
            self.counted += counts
        return self.alive

    async def reject(self) -> bool:
        if self.alive and not self.settled:
            self.rejects += 1
        return self.alive

    @property
    def settled(self) -> bool:
        return self.acks + self.requeues + self.rejects > 0


@dataclass
class FakeConsumerHandle:
    name: str = "replies"
    ready: bool = True
    last_error: str | None = None
    hold: asyncio.Event | None = None
    """Event that `cancel` waits for."""
    closed: int = 0

    async def wait_ready(self) -> None:
        if not self.ready:
            await asyncio.Event().wait()

    async def cancel(self) -> None:
        self.ready = False
        if self.hold is not None:
            await self.hold.wait()

    async def close(self) -> None:
        self.ready = False
        self.closed += 1


@dataclass
class Sent:
    envelope: Envelope
    address: Address
    timeout: float
    via: Delivery | None


Answer = Callable[[Envelope], PublishOutcome | None]


@dataclass
class FakeTransport:
    """Transport that accepts every message unless `answer` returns another outcome."""

    answer: Answer = lambda _: None
    sent: list[Sent] = field(default_factory=list)
    declared: list[Topology] = field(default_factory=list)
    consumption: FakeConsumerHandle = field(default_factory=FakeConsumerHandle)
    deliver: Callable[[Delivery], None] = lambda _: None
    closed: int = 0
    has_management_api: bool = True
    is_refused: bool = False
    heeds: bool = False
    consumer_timeouts: dict[str, float | None] = field(default_factory=dict)
    body_limits: dict[str, int] = field(default_factory=dict)

    async def start(self, observer: ReturnListener, *, timeout: float) -> None: ...

    async def declare(self, topology: Topology) -> None:
        self.declared.append(topology)

    async def depth(self, queue: str) -> int:
        return 0

    async def send(
        self, envelope: Envelope, address: Address, *, timeout: float, via: Delivery | None = None
    ) -> PublishOutcome:
        self.sent.append(Sent(envelope, address, timeout, via))
        return self.answer(envelope) or Accepted()

    def supports_consumer_timeout(self, queue: Queue) -> bool:
        return self.heeds

    async def consume(
        self, spec: ConsumerSpec, on_delivery: Callable[[Delivery], None]
    ) -> ConsumerHandle:
        self.deliver = on_delivery
        self.consumer_timeouts[spec.queue.name] = spec.consumer_timeout
        self.body_limits[spec.queue.name] = spec.max_body_bytes
        return self.consumption

    async def close(self) -> None:
        self.closed += 1


R = TypeVar("R", bound=Message | None)


class NoSender:
    """Sender for handlers that do not send."""

    async def request(
        self,
        request: Request[R],
        *,
        timeout: float | None = None,
        wait_for_service: bool = False,
        fallback: object = None,
    ) -> R:
        raise NotImplementedError

    async def publish(self, event: Event, *, timeout: float | None = None) -> None:
        raise NotImplementedError

    async def submit(self, job: Job[R], *, timeout: float | None = None) -> PendingJob[R]:
        raise NotImplementedError

    def job(
        self, job: JobClass[Any, R], job_id: str, *, submitter: str | None = None
    ) -> PendingJob[R]:
        raise NotImplementedError


@dataclass
class FakeIdentity:
    """An identity with the signer and verifier of a test."""

    signer: Signer | None
    verifier: Verifier | None = None
    is_anonymous: bool = False

    def check_send_permission(self, _contract: Contract) -> None:
        """Permit every message."""


def security_of(signer: Signer | None, verifier: Verifier | None = None) -> MessageSecurity:
    return MessageSecurity(identity=cast("ServiceIdentity", FakeIdentity(signer, verifier)))


def runtime_of(
    transport: FakeTransport,
    *,
    service: str = "ledger",
    security: MessageSecurity = NO_SECURITY,
    inbox: Inbox | None = None,
    settings: Settings | None = None,
    clock: Callable[[], float] = lambda: NOW,
) -> ServiceRuntime:
    return ServiceRuntime(
        service=service,
        instance="host-1",
        transport=transport,
        settings=settings or load_settings(delivery_limit=LIMIT),
        security=security,
        inbox=MemoryInbox() if inbox is None else inbox,
        clock=clock,
    )


def state_of(
    router: Router,
    transport: FakeTransport,
    *,
    inbox: Inbox | None = None,
    gate: EndpointGuard | None = None,
    signer: Signer | None = None,
    candidates: CandidateQueue | None = None,
    clock: Callable[[], float] = lambda: NOW,
) -> EndpointState:
    """The state of a router's only endpoint."""
    ((name, endpoint),) = router.endpoints.items()
    queue, topology = router.topology()[name]
    security = NO_SECURITY if gate is None else security_of(signer)
    return EndpointState(
        endpoint=endpoint,
        spec=ConsumerSpec(queue=queue, topology=topology, prefetch=endpoint.concurrency),
        runtime=runtime_of(
            transport, service=router.name, security=security, inbox=inbox, clock=clock
        ),
        guard=OpenGuard() if gate is None else gate,
        candidates=CandidateQueue() if candidates is None else candidates,
    )


def receiver_of(
    router: Router,
    transport: FakeTransport,
    *,
    handler: Handler | None = None,
    inbox: Inbox | None = None,
    gate: EndpointGuard | None = None,
    signer: Signer | None = None,
    candidates: CandidateQueue | None = None,
    clock: Callable[[], float] = lambda: NOW,
) -> Receiver:
    """Return a receiver for the only endpoint of a router."""
    state = state_of(
        router,
        transport,
        inbox=inbox,
        gate=gate,
        signer=signer,
        candidates=candidates,
        clock=clock,
    )
    return receiver_for(state, ServiceStack(handler=handler or router, sender=NoSender()))
