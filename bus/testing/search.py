"""The search for messages that a test asks about: sent messages and dead letters."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, cast

from bus.contracts.contract import CATALOG, Message, contract_of, decode
from bus.errors import BusError, NotFound
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import read_record
from bus.messaging.suggestions import did_you_mean
from bus.messaging.topology.names import (
    dead_letter_queue,
    event_queue,
    job_queue,
    parse_queue_name,
    service_of,
    work_queue,
)
from bus.testing.messages import DeadMessage, FoundMessages, SentMessage, describe
from bus.testing.work import Work
from bus.transports.memory import MemoryBroker
from bus.transports.wire_format import ROLES, broker_headers
from bus.transports.wire_format import decode as decode_wire

__all__ = ["find_dead", "find_sent"]

M = TypeVar("M", bound=Message)

Decrypt = Callable[[Envelope], Envelope]


def find_sent(work: Work, model: type[M], kind: str, verb: str) -> FoundMessages[M, SentMessage[M]]:
    """Return the sent messages of one contract, in the order in which they were sent.

    Raises:
        ContractError: The class has no contract.
        TypeError: The contract is of another kind.
    """
    contract = contract_of(model)
    if contract.kind != kind:
        raise TypeError(
            f"{contract.type} is a contract of kind {contract.kind}, so it is never {verb}. "
            "Use published for events, submitted for jobs, and requested for requests."
        )
    found = (
        SentMessage(
            message=decode(model, envelope.body),
            envelope=envelope,
            cause=work.failures.get(envelope.id),
        )
        for envelope in work.sent.values()
        if envelope.type == contract.type
    )
    failed = [
        f"{work.failed_types[id_]}: {describe(error)}" for id_, error in work.failures.items()
    ]
    return FoundMessages(found, f"{kind} {contract.type}", verb, model=model, failed=failed)


def find_dead(
    broker: MemoryBroker, work: Work, source: type[M] | str, decrypt: Decrypt
) -> FoundMessages[M, DeadMessage[M]]:
    """Return the dead letters of a contract in all queues, or the dead letters of one queue.

    Raises:
        ContractError: The class has no contract.
        NotFound: No queue has this name.
    """
    if isinstance(source, str):
        subject = f"dead letter of {source}"
        queues = [_dead_queue(broker, source)]
        found = (dead for queue in queues for dead in _read(broker, work, queue, decrypt))
        model = _model_of(queues[0])
        return FoundMessages(cast("Iterator[DeadMessage[M]]", found), subject, "found", model=model)
    type_ = contract_of(source).type
    found = (
        dead
        for queue in _dead_queues(broker)
        for dead in _read(broker, work, queue, decrypt, model=source)
        if dead.envelope.type == type_
    )
    return FoundMessages(
        cast("Iterator[DeadMessage[M]]", found), f"dead letter of {type_}", "found", model=source
    )


def _model_of(dead_queue: str) -> type[Message] | None:
    """Return the class of the messages in a dead-letter queue, if this process has imported it."""
    work = work_queue(dead_queue) or ""
    for contract in CATALOG:
        if contract.kind == "job" and work == job_queue(contract):
            return contract.model
        # A subscription with a name has one more part.
        if contract.kind == "event" and f"{work}.".startswith(
            f"{event_queue(service_of(work), contract)}."
        ):
            return contract.model
    return None


def _dead_queues(broker: MemoryBroker) -> Iterator[str]:
    for queue in broker.queues:
        parsed = parse_queue_name(queue)
        if parsed is not None and parsed.role == "dead":
            yield queue


def _dead_queue(broker: MemoryBroker, name: str) -> str:
    """Return the name of the dead-letter queue of a work queue, or of this dead-letter queue."""
    known = [*_dead_queues(broker)]
    for queue in (name, dead_letter_queue(name)):
        if queue in known:
            return queue
    raise NotFound(
        f"queue '{name}' has no dead-letter queue{did_you_mean(name, map(str, _works(known)))}"
    )


def _works(dead_queues: Iterable[str]) -> Iterator[str]:
    for queue in dead_queues:
        yield work_queue(queue) or queue


def _read(
    broker: MemoryBroker,
    work: Work,
    queue: str,
    decrypt: Decrypt,
    *,
    model: type[Message] | None = None,
) -> Iterator[DeadMessage[Message]]:
    """Yield the dead letters of one queue. None as `model`: the type of each one selects it."""
    for wire in broker.peek(queue):
        envelope = decode_wire(wire, role=ROLES["dead"], queue=queue, received=0)
        record = read_record(envelope, broker_headers(wire.headers), work_queue=work_queue(queue))
        yield DeadMessage(
            message=_decode(envelope, decrypt, model),
            envelope=envelope,
            record=record,
            queue=queue,
            cause=work.failures.get(envelope.id),
        )


def _decode(envelope: Envelope, decrypt: Decrypt, model: type[Message] | None) -> Message | None:
    contract = CATALOG.get(envelope.type)
    model = model or (None if contract is None else contract.model)
    try:
        return None if model is None else cast("Message", decode(model, decrypt(envelope).body))
    except BusError:
        return None  # a malformed payload is a usual reason for a dead letter
