"""The configuration of each peer in each workload, without which a figure means nothing."""

from benchmarks.peers import (
    AIO_PIKA,
    CELERY,
    CELERY_STORED,
    DBOS,
    FASTSTREAM,
    FEW_HANDLERS,
    NAMEKO,
    NO_STORE,
    ON_FASTSTREAM,
    ON_POSTGRES,
    ON_SQLITE,
    OURS,
    PGQUEUER,
    PLAIN,
    PROCRASTINATE,
    SIGNED,
    TASKIQ,
    TASKIQ_STORED,
    C,
)

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
    "durable": "Durable jobs, submit to stored result, 50 submissions in flight",
    "durable-start": "Durable jobs, submit to the handler's start, at 25 % of the peak, open loop",
    "rpc-workers1": "RPC, 100 in flight, 1 worker process",
    "rpc-workers2": "RPC, 100 in flight, 2 worker processes",
    "rpc-workers4": "RPC, 100 in flight, 4 worker processes",
    "nap-workers1": "A handler that waits 10 ms, 4 at a time, 1 worker process",
    "nap-workers2": "A handler that waits 10 ms, 4 at a time, 2 worker processes",
    "nap-workers4": "A handler that waits 10 ms, 4 at a time, 4 worker processes",
    "latency25": "RPC at 25 % of the peak, open loop",
    "latency50": "RPC at 50 % of the peak, open loop",
    "latency75": "RPC at 75 % of the peak, open loop",
    "waiting0": "Consume with ack, 10,000 messages pass through an empty queue",
    "waiting1000000": "Consume with ack, 1,000,000 wait",
}
FULL = "validation, correlation and trace headers, deadline, logging at info"
REPLIED = "ack after the reply, mandatory, no confirm (the reply is the confirm)"
SECURED = "with `BUS_AUTH=on`. Tokens (Ed25519) both ways, cached once checked; rights from grants"
DIRECT = "Direct reply-to, classic queue, prefetch 200, ack, no confirms"
LOCKED = "Its `request` has one call in flight for each broker object"
SUBSCRIBER = "One connection, and FastStream's subscriber for each queue"
EARLY = "early ack (its default), thread pool, log level warning"
HANDLED = "prefetch 200, ack after the handler"
PROVEN = "as Trunkline with `BUS_AUTH=on`. Each event has a proof of its own (Ed25519)"
QUEUES = "one quorum queue for each subscription"
FANNED = "one quorum queue and channel for each subscription, prefetch 200, confirms, one process"
RPC = {
    OURS: f"{FULL}. Classic queue, prefetch 200, {REPLIED}",
    SIGNED: f"as Trunkline {SECURED}",
    PLAIN: "as Trunkline on aio-pika's plain path (`BUS_FASTLANE=off`)",
    ON_FASTSTREAM: f"as Trunkline, client and service each on a FastStream broker. {SUBSCRIBER}",
    AIO_PIKA: f"validation, correlation id, a timeout. {DIRECT}; no logging",
    FASTSTREAM: f"validation, correlation id. {LOCKED}; prefetch 200, ack, no confirms, logger off",
    CELERY: f"validation (`pydantic=True`). Backend `rpc`, transient, prefetch 200, {EARLY}",
    NAMEKO: "validation. JSON serializer, 200 workers, prefetch 200, ack, eventlet, no logging",
    C: f"no validation (bytes are echoed). {DIRECT}; replies are checked by id and size",
}
PUBLISH = {
    OURS: f"{FULL}. Topic exchange, persistent, confirm awaited",
    SIGNED: PROVEN,
    PLAIN: "as Trunkline on aio-pika's plain path",
    ON_FASTSTREAM: "as Trunkline on a FastStream broker",
    AIO_PIKA: "validation. Default exchange, persistent, confirm awaited",
    FASTSTREAM: "validation. Default exchange, persistent, confirm awaited",
    C: "no validation. Default exchange, persistent, confirms counted",
}
CONSUME = {
    OURS: f"{FULL}. One task for each message, settlement (retry or dead letter), {HANDLED}",
    SIGNED: "as Trunkline, and each proof is checked before the handler; rights from grants",
    PLAIN: "as Trunkline on aio-pika's plain path",
    ON_FASTSTREAM: "as Trunkline on a FastStream broker",
    AIO_PIKA: f"validation. One task for each message, {HANDLED}",
    FASTSTREAM: "validation. Prefetch 200, ack after the handler, logger off",
    C: "no validation. Prefetch 200, ack at once",
}
FANOUT = {
    OURS: f"{FULL}. Topic exchange, {QUEUES}, prefetch 200, confirms, one process",
    SIGNED: f"{PROVEN}, which each subscription checks",
    AIO_PIKA: f"validation. Fanout exchange, {FANNED}",
    FASTSTREAM: f"validation. Fanout exchange, {FANNED}, logger off",
}
JOBS = {
    OURS: f"{FULL}. Confirm, ack after the handler, result sent to the submitter's handle",
    TASKIQ: "validation. Confirm, ack after the handler, no result backend",
}
QUORUM = "The job waits in a quorum queue of RabbitMQ, and the submission is confirmed"
AGAIN = "At least once"
BY_HAND = (
    "It stores no results, so the handler writes its own into a table, in a second transaction"
)
IN_ROW = f"{FULL}. {QUORUM}; the worker writes it to a row and acks it, and the row is the job"
FENCED = f"{AGAIN}, with a lease and a token that a stale attempt cannot use"
DURABLE = {
    ON_POSTGRES: f"{IN_ROW}. {FENCED}. The result is in the row, and is sent to the submitter, "
    "too. 100 handlers at a time",
    FEW_HANDLERS: "as Trunkline, PostgreSQL, with 10 handlers at a time, so that one statement "
    "claims or ends fewer jobs",
    ON_SQLITE: "as Trunkline, PostgreSQL, with a store in one SQLite file",
    NO_STORE: f"{FULL}. {QUORUM}; acked after the handler. {AGAIN}. The result is only sent to the "
    "submitter's handle, and the clock stops when the submitter has it. 100 handlers at a time",
    CELERY_STORED: f"validation. {QUORUM}; `task_acks_late`. {AGAIN}. Database backend, prefork "
    "pool of 10 processes, 10 threads submit",
    TASKIQ_STORED: f"validation. {QUORUM}; acked after the handler. {AGAIN}. "
    "`AsyncpgResultBackend` of taskiq-postgres, 100 tasks at a time (its default)",
    PROCRASTINATE: f"validation. The job waits in a row. {AGAIN}, after its worker is found to be "
    f"stalled. 10 jobs at a time, LISTEN/NOTIFY. {BY_HAND}",
    PGQUEUER: f"validation. The job waits in a row. {AGAIN}, after a heartbeat is missed. Batches "
    f"of 10 (its default), LISTEN/NOTIFY, ends written in batches. {BY_HAND}",
    DBOS: f"validation. The job waits in a row. {AGAIN}, recovered by the worker of that name. "
    "Queue without a limit, a look every 50 ms (its default is a second), result in the row",
}
GROUPS = {
    "durable": DURABLE,
    "rpc": RPC,
    "nap": RPC,
    "latency": RPC,
    "publish": PUBLISH,
    "consume": CONSUME,
    "waiting": CONSUME,
    "fanout": FANOUT,
    "jobs": JOBS,
}
"""Configurations by the prefix of a workload's name."""


def condition(work: str, peer: str) -> str:
    """Return the configuration of a peer in a workload, in one line."""
    group = next(found for prefix, found in GROUPS.items() if work.startswith(prefix))
    return group.get(peer, "")
