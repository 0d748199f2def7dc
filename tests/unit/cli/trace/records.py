"""Records of a small system, from which the tests make traces."""

from typing import Any

from bus.messaging.service_info import RememberedMessage, RememberedMessages

T0 = 1_796_000_000_000
ORDER = "8f3c0c5e-7a42-4f0e-8a55-6cf3a1f1c2de"
SCAN = "1bca7969-65da-4741-9053-a6d7357cb8dc"
QUEUE = "library.jobs.scan.v1"


def remembered(action: str, id_: str = SCAN, **values: Any) -> RememberedMessage:
    known: dict[str, Any] = {
        "type": "library.scan.v1",
        "source": "shop",
        "at": T0,
        "correlation_id": ORDER,
        "queue": None if action == "sent" else QUEUE,
    }
    return RememberedMessage(**{"action": action, "id": id_, **known, **values})


def memory(
    *messages: RememberedMessage, service: str | None = None, instance: str = "vm-7-ab"
) -> RememberedMessages:
    """Return the memory of a service, by default of the one to which the first message belongs."""
    if service is None:
        is_sender = messages and messages[0].action == "sent"
        service = messages[0].source if is_sender else "library"
    return RememberedMessages(
        service=service,
        instance=instance,
        started=T0 - 100_000,
        state="ready",
        since=T0 - 100_000,
        remembered=12,
        messages=messages,
    )


SHOP = memory(
    remembered("sent", ORDER, type="shop.order.v1", seconds=0.25),
    remembered("sent", causation_id=ORDER, at=T0 + 20, seconds=0.002),
    service="shop",
)
LIBRARY = memory(
    remembered(
        "retried", at=T0 + 30, seconds=0.5, outcome="internal", tier="30s", causation_id=ORDER
    )
)
