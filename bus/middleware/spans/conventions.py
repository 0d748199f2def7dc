"""Names and attributes of spans, as the semantic conventions of OpenTelemetry define them.

A request follows the conventions for RPC, and an event or job those for RabbitMQ. The version is
1.45. `OTEL_SEMCONV_STABILITY_OPT_IN` can add the names of the conventions before their revision.

- https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/
- https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, cast

from bus.contracts.contract import Kind
from bus.errors import (
    DataLoss,
    DeadlineExceeded,
    Internal,
    ProcessLost,
    Unavailable,
    Unimplemented,
    Unknown,
)
from bus.messaging.envelope import Envelope
from bus.messaging.fault_record import REPLAYS
from bus.messaging.topology.addresses import address_of
from bus.messaging.topology.names import service_of

__all__ = [
    "SCHEMA_URL",
    "Conventions",
    "HandledBy",
    "SpanKind",
    "SpanTemplate",
    "is_server_error",
    "message_attributes",
]

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.45.0"
RPC_SYSTEM: Final = "trunkline"
MESSAGING_SYSTEM: Final = "rabbitmq"
OTHER: Final = "_OTHER"
"""The method of a request that the service does not have."""
MAX_ORIGINAL_LENGTH = 100
"""Maximum number of characters in the type of such a request. Any client can write it."""
SpanKind = Literal["CLIENT", "SERVER", "PRODUCER", "CONSUMER"]

SERVER_ERRORS = frozenset(
    error.code
    for error in (
        *(DataLoss, DeadlineExceeded, Internal, ProcessLost),
        *(Unavailable, Unimplemented, Unknown),
    )
)
"""Codes for which the span of a service has the status ERROR: the service is at fault.

The conventions for gRPC have the same list. The caller's span has this status for every code.
"""


@dataclass(frozen=True, slots=True)
class SpanTemplate:
    """The parts of a span that all messages of one type have in common."""

    name: str
    kind: SpanKind
    type: str
    """Type of the messages."""
    attributes: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class HandledBy:
    """The handler of a message."""

    type: str
    """Type in the contract of the handler."""
    kind: Kind
    queue: str
    subscription: str | None = None


class Conventions:
    """The attributes of the spans of one process."""

    def __init__(self, instance: str, opt_in: Collection[str] = ()) -> None:
        """Create the conventions.

        Args:
            instance: Name of this process, unique among the processes of the service.
            opt_in: Values of `OTEL_SEMCONV_STABILITY_OPT_IN`. With `rpc/dup` or `messaging/dup`
                spans have the older attributes, too. The other values change nothing, because the
                bus has never sent only the older ones.
        """
        self._instance = instance
        self._duplicates_rpc = "rpc/dup" in opt_in
        self._duplicates_messaging = "messaging/dup" in opt_in
        self.sending = lru_cache(maxsize=1024)(self._sending)
        """Return the template of a message that is sent, by its role and type."""

    def _sending(self, role: str, type_: str) -> SpanTemplate:
        if role == "request":
            return SpanTemplate(type_, "CLIENT", type_, self._rpc(type_))
        address = address_of(cast("Kind", role), type_)
        destination = f"{address.exchange}:{address.routing_key}"
        attributes = {
            **self._messaging(destination, "publish", "send"),
            "messaging.rabbitmq.destination.routing_key": address.routing_key,
        }
        return SpanTemplate(f"publish {destination}", "PRODUCER", type_, attributes)

    def handling(self, handler: HandledBy) -> SpanTemplate:
        """Return the template of the messages of one handler."""
        if handler.kind == "request":
            return SpanTemplate(handler.type, "SERVER", handler.type, self._rpc(handler.type))
        attributes = self._messaging(handler.queue, "process", "process")
        if handler.subscription is not None:
            attributes["messaging.destination.subscription.name"] = handler.subscription
        return SpanTemplate(f"process {handler.queue}", "CONSUMER", handler.type, attributes)

    def unknown_request(self, type_: str) -> SpanTemplate:
        """Return the template of a request for which the service has no handler."""
        original = type_[:MAX_ORIGINAL_LENGTH].encode(errors="replace").decode()
        attributes = {**self._rpc(OTHER), "rpc.method_original": original}
        return SpanTemplate(RPC_SYSTEM, "SERVER", type_, attributes)

    def _rpc(self, method: str) -> dict[str, str]:
        attributes = {"rpc.system.name": RPC_SYSTEM, "rpc.method": method}
        if method != OTHER:
            attributes["server.address"] = service_of(method)
        if self._duplicates_rpc:
            attributes["rpc.system"] = RPC_SYSTEM
            if method != OTHER:
                attributes["rpc.service"] = service_of(method)
        return attributes

    def _messaging(self, destination: str, name: str, kind: str) -> dict[str, str]:
        attributes = {
            "messaging.system": MESSAGING_SYSTEM,
            "messaging.operation.name": name,
            "messaging.operation.type": kind,
            "messaging.destination.name": destination,
            "messaging.client.id": self._instance,
        }
        if self._duplicates_messaging:
            attributes["messaging.operation"] = name
            attributes["messaging.client_id"] = self._instance
        return attributes


def message_attributes(envelope: Envelope, correlation_id: str) -> dict[str, str | int]:
    """Return the attributes of one message. They have ids and numbers, and nothing of its body."""
    attributes: dict[str, str | int] = {
        "messaging.message.id": envelope.id,
        "messaging.message.conversation_id": correlation_id,
    }
    if envelope.received is not None:
        attributes["trunkline.message.source"] = envelope.source
        if envelope.role != "request":
            attributes["trunkline.message.attempt"] = envelope.attempt
        replays = envelope.headers.get(REPLAYS)
        if isinstance(replays, int):
            attributes["trunkline.message.replays"] = replays
    return attributes


def is_server_error(code: str) -> bool:
    """Return True if the code of a failed request means that the service is at fault."""
    return code in SERVER_ERRORS
