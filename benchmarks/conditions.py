"""What is switched on, for each work and each peer: a figure means nothing without it."""

from benchmarks.peers import AIO_PIKA, CELERY, FASTSTREAM, NAMEKO, ON_FASTSTREAM, OURS, PLAIN, SIGNED, TASKIQ, C

__all__ = ["TITLES", "condition"]

TITLES = {
    "rpc1": "RPC, 1 in flight",
    "rpc100": "RPC, 100 in flight",
    "publish": "Publish with confirm, quorum queue, 200 in flight",
    "consume": "Consume with ack, prefilled quorum queue",
    "fanout1": "An event to 1 subscription",
    "fanout5": "An event to 5 subscriptions",
    "fanout20": "An event to 20 subscriptions",
    "jobs": "Jobs, submit to done, quorum queue, 200 in flight",
    "rpc-workers1": "RPC, 100 in flight, 1 worker process",
    "rpc-workers2": "RPC, 100 in flight, 2 worker processes",
    "rpc-workers4": "RPC, 100 in flight, 4 worker processes",
    "nap-workers1": "a handler that waits 10 ms, 4 at a time, 1 worker process",
    "nap-workers2": "the same, 2 worker processes",
    "nap-workers4": "the same, 4 worker processes",
    "latency25": "RPC at 25 % of the peak, open loop",
    "latency50": "RPC at 50 % of the peak, open loop",
    "latency75": "RPC at 75 % of the peak, open loop",
    "waiting0": "Consume with ack, 10,000 messages pass an empty queue",
    "waiting1000000": "Consume with ack, 1,000,000 wait",
}
FULL = "validation, correlation and trace headers, deadline, logging at info"
RPC = {
    OURS: f"{FULL}; classic queue, prefetch 200, ack after the reply, mandatory, no confirm (the reply is it)",
    SIGNED: "as above, and `BUS_AUTH=on`: both ways a token (Ed25519), which is looked up once it was checked; rights by grants",
    PLAIN: "as Trunkline on aio-pika's plain path (`BUS_FASTLANE=off`)",
    ON_FASTSTREAM: "the same service and client on a FastStream broker each: one connection, and FastStream's subscriber for each queue",
    AIO_PIKA: "validation, correlation id, a timeout; direct reply-to, classic queue, prefetch 200, ack, no confirms; no logging",
    FASTSTREAM: "validation, correlation id; its `request`: one in flight for a broker object; prefetch 200, ack, no confirms; logger off",
    CELERY: "validation (`pydantic=True`); backend `rpc`, transient, prefetch 200, early ack (its default), thread pool; log level warning",
    NAMEKO: "validation; JSON serializer, 200 workers, prefetch 200, ack, eventlet; no logging",
    C: "none: bytes are echoed; direct reply-to, classic queue, prefetch 200, ack, no confirms; replies checked by id and size",
}
PUBLISH = {
    OURS: f"{FULL}; topic exchange, persistent, confirm awaited",
    SIGNED: "as above, and `BUS_AUTH=on`: each event with a proof of its own (Ed25519)",
    PLAIN: "as Trunkline on aio-pika's plain path",
    ON_FASTSTREAM: "as above on a FastStream broker",
    AIO_PIKA: "validation; default exchange, persistent, confirm awaited",
    FASTSTREAM: "validation; default exchange, persistent, confirm awaited",
    C: "none; default exchange, persistent, confirms counted",
}
CONSUME = {
    OURS: f"{FULL}; a task a message, settlement (retry or dead letter), prefetch 200, ack after the handler",
    SIGNED: "as above, and each proof checked before the handler; rights by grants",
    PLAIN: "as Trunkline on aio-pika's plain path",
    ON_FASTSTREAM: "as above on a FastStream broker",
    AIO_PIKA: "validation; a task a message, prefetch 200, ack after the handler",
    FASTSTREAM: "validation; prefetch 200, ack after the handler; logger off",
    C: "none; prefetch 200, ack at once",
}
FANOUT = {
    OURS: f"{FULL}; topic exchange, a quorum queue a subscription, prefetch 200, confirms, all subscriptions in one process",
    SIGNED: "as above, and `BUS_AUTH=on`: each event with a proof of its own (Ed25519), which each subscription checks",
    AIO_PIKA: "validation; fanout exchange, a quorum queue and channel a subscription, prefetch 200, confirms, one process",
    FASTSTREAM: "validation; fanout exchange, a quorum queue and channel a subscription, prefetch 200, confirms, one process; logger off",
}
JOBS = {
    OURS: f"{FULL}; confirm, ack after the handler, and the result goes back to the submitter's handle",
    TASKIQ: "validation; confirm, ack after the handler, no result backend",
}
GROUPS = {
    "rpc": RPC, "nap": RPC, "latency": RPC, "publish": PUBLISH, "consume": CONSUME, "waiting": CONSUME, "fanout": FANOUT, "jobs": JOBS,
}  # fmt: skip


def condition(work: str, peer: str) -> str:
    """In one line."""
    group = next(found for prefix, found in GROUPS.items() if work.startswith(prefix))
    return group.get(peer, "")
