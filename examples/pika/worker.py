"""Synchronous worker with pika: a job with retries and dead letters, and a subscription.

Each step names its section of docs/reference/wire-client.md.
Run it beside the service of library.py: python -m examples.pika.worker
The worker stores no handled messages (step 4), so its handlers must be idempotent.
"""

import functools
import json
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pika import BasicProperties
from pika.exceptions import NackError, UnroutableError

from examples.pika.client import connected, encoded, message
from examples.pika.security import Identity, Refused, digest, own_queue, require

TIERS = {"1s": 1_000, "5s": 5_000, "30s": 30_000, "10m": 600_000}  # after the attempts 1 to 4
LIMIT = 10  # lost deliveries of a message
PATIENCE = 60  # seconds for a copy, before its message is requeued
COMES_BACK = 30  # seconds for a submitter to come back for its result
ANSWERED = ("correlation-id", "traceparent", "tracestate")


class Temporary(Exception):
    """Error after which another attempt may succeed."""


@dataclass(frozen=True, kw_only=True)
class Handler:
    """Function for the payloads of one contract, with their work queue."""

    act: Callable[["Worker", "Handler", BasicProperties, Any], object]
    type: str
    queue: str
    right: str  # `call` for a job, `publish` for an event
    encrypted: bool = False


class Worker:
    """Consumer of the work queues of one service."""

    def __init__(self, me: Identity, handlers: list[Handler]) -> None:
        self.me, self.handlers, self.connection = me, handlers, connected(me.name)
        self.publishing, self.consuming = self.connection.channel(), self.connection.channel()
        self.publishing.confirm_delivery()
        self.consuming.basic_qos(prefetch_count=10)
        self.declare()
        for handler in handlers:
            consume = functools.partial(self._delivered, handler)
            self.consuming.basic_consume(handler.queue, consume)

    def declare(self) -> None:
        """Do step 1 of section "Handle an event or a job", with the tables of topology.md."""
        me, channel, quorum = self.me.name, self.consuming, {"x-queue-type": "quorum"}
        keeps = {**quorum, "x-delivery-limit": 1_000_000}
        moves = {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        back, lost = f"{me}.return", f"{me}.unroutable.dead"
        channel.exchange_declare(lost, "fanout", durable=True)
        channel.queue_declare(lost, durable=True, arguments=keeps)
        channel.queue_bind(lost, lost, "")
        fallback = {"alternate-exchange": lost}
        channel.exchange_declare(back, "direct", durable=True, arguments=fallback)
        for tier, wait in TIERS.items():
            name = f"{me}.retry.{tier}"
            returns = {"x-message-ttl": wait, "x-dead-letter-exchange": back}
            channel.exchange_declare(name, "fanout", durable=True)
            channel.queue_declare(name, durable=True, arguments={**quorum, **moves, **returns})
            channel.queue_bind(name, name, "")
        for handler in self.handlers:
            queue, source = handler.queue, "jobs" if handler.right == "call" else "events"
            own: dict[str, Any] = {
                "x-dead-letter-exchange": "bus.dead",
                "x-dead-letter-routing-key": queue,
            }
            own |= {"x-delivery-limit": 100}
            channel.queue_declare(f"{queue}.dead", durable=True, arguments=keeps)
            channel.queue_bind(f"{queue}.dead", "bus.dead", queue)
            channel.queue_declare(queue, durable=True, arguments={**quorum, **moves, **own})
            channel.queue_bind(queue, f"bus.{source}", handler.type)
            channel.queue_bind(queue, back, queue)

    def _delivered(
        self, handler: Handler, _channel: Any, method: Any, got: BasicProperties, body: bytes
    ) -> None:
        """Handle a delivery: steps 2 to 7 of section "Handle an event or a job"."""
        got.headers = got.headers or {}
        admitted = False
        try:
            lost = got.headers.get("x-delivery-count", 0)
            require(lost < LIMIT, "its workers ended while they handled it", "process_lost")
            self.me.check_message(got, body, handler.right, handler.type.rpartition(".")[0])
            admitted = True
            require(got.content_type == "application/json", "not JSON", "invalid_argument")
            require(got.type == handler.type, "another type", "unimplemented")
            settled = self._handled(handler, got, body)
        except Refused as refused:
            if refused.may_change and "parked-at" not in got.headers:
                waits = copied(got, {"parked-at": now()})
                settled = self._stored(f"{self.me.name}.retry.30s", handler, waits, body)
            else:
                settled = self._failed(handler, got, body, refused, admitted=admitted)
        if settled:
            self.consuming.basic_ack(method.delivery_tag)
        else:
            self.consuming.basic_nack(method.delivery_tag, requeue=True)

    def _handled(self, handler: Handler, got: BasicProperties, body: bytes) -> bool:
        """Act, and settle the message by the table of outcomes. Return True to ack it."""
        try:
            payload = handler.act(self, handler, got, self._payload(handler, got, body))
        except Exception as error:  # noqa: BLE001 - a bug must not end the worker
            return self._after(error, handler, got, body)
        if got.reply_to:
            self._send_last(handler, got, payload, time.time() + COMES_BACK)
        return True

    def _payload(self, handler: Handler, got: BasicProperties, body: bytes) -> dict[str, Any]:
        if handler.encrypted:
            encrypted = got.headers.get("encryption") == "jwe"
            require(encrypted, "the payload must be encrypted", "invalid_argument")
            body = self.me.decrypt(got, body)
        try:
            payload = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise Refused("invalid_argument", "the body is not JSON") from error
        valid = isinstance(payload, dict) and isinstance(payload.get("title"), str)
        require(valid, "title must be a text", "invalid_argument")
        return dict(payload)

    def _after(self, error: Exception, handler: Handler, got: BasicProperties, body: bytes) -> bool:
        """Do the steps of section "Make a retry copy", or dead-letter the message."""
        attempt = got.headers.get("attempt", 1)
        why = Refused("internal", "internal error")  # the text of a bug may be confidential
        if isinstance(error, Temporary):
            why = Refused("unavailable", str(error))
        if isinstance(error, Refused):
            why = error
        if attempt > len(TIERS) or why.code not in ("internal", "unavailable"):
            return self._failed(handler, got, body, why, admitted=True)
        tier = list(TIERS)[attempt - 1]
        first = got.headers.get("first-failed-at", now())
        again = copied(got, {"attempt": attempt + 1, "first-failed-at": first})
        if not self._stored(f"{self.me.name}.retry.{tier}", handler, again, body):
            return False
        note = f"attempt {attempt} failed: {why}; next in {tier}"
        self.progress(handler, got, (0.0, note, why.code))
        return True

    def _failed(
        self, handler: Handler, got: BasicProperties, body: bytes, why: Refused, *, admitted: bool
    ) -> bool:
        """Do the steps of section "Make a dead letter", and tell the submitter the failure."""
        dead = {"dead-code": why.code, "dead-reason": str(why), "dead-at": now()}
        dead |= {"dead-attempts": got.headers.get("attempt", 1), "dead-queue": handler.queue}
        dead |= {"dead-by": self.me.name, "dead-host": socket.gethostname()}
        letter = copied(got, dead)
        if not self._stored("bus.dead", handler, letter, body):
            return False
        # Section "Refuse" of wire-security.md: the address must be one of a known service.
        known = got.app_id in self.me.grants and own_queue(got.reply_to or "", got.app_id)
        if (admitted and got.reply_to) or (known and got.app_id != self.me.name):
            failure: dict[str, Any] = {"code": why.code, "message": str(why)}
            failure |= {"retryable": False, "maybe_executed": False}
            self._send_last(handler, got, failure, time.time() + COMES_BACK)
        return True

    def _stored(self, exchange: str, handler: Handler, copy: BasicProperties, body: bytes) -> bool:
        """Publish a copy until the broker has confirmed it, for a minute at most."""
        end = time.time() + PATIENCE
        while time.time() < end:
            try:
                self.publishing.basic_publish(exchange, handler.queue, body, copy, mandatory=True)
            except (NackError, UnroutableError):
                self.connection.sleep(1)
                self.declare()
            else:
                return True
        return False

    def progress(
        self, handler: Handler, got: BasicProperties, state: tuple[float, str, str | None]
    ) -> None:
        """Do the steps of section "Send progress"; a failure must not fail the job."""
        if got.reply_to:
            payload = dict(zip(("progress", "note", "error"), state, strict=True))
            try:
                self._update(handler, got, handler.type + ".progress", payload)
            except NackError:
                return

    def _send_last(
        self, handler: Handler, got: BasicProperties, payload: object, end: float
    ) -> None:
        """Send the result or failure of a job, again and again if its submitter is away."""
        failed = isinstance(payload, dict) and "maybe_executed" in payload
        try:
            kind = "bus.error.v1" if failed else handler.type + ".reply"
            self._update(handler, got, kind, payload)
        except (NackError, UnroutableError):
            if time.time() < end:
                again = functools.partial(self._send_last, handler, got, payload, end)
                self.connection.call_later(1, again)

    def _update(self, handler: Handler, got: BasicProperties, kind: str, payload: Any) -> None:
        """Sign and publish an update: section "Fill in a message", the part about answers."""
        headers = {name: got.headers[name] for name in ANSWERED if name in got.headers}
        headers.setdefault("correlation-id", got.message_id)
        headers |= {"causation-id": got.message_id}
        sent = message(self.me, kind, correlation_id=got.message_id, delivery_mode=1)
        sent.headers = headers
        failed = kind == "bus.error.v1"
        claims = {"aud": got.app_id}
        if failed:
            headers["error"] = payload["code"]
            claims["ref"] = digest(got.headers.get("proof", ""))
        encrypted = handler.encrypted and not failed
        body = encoded(self.me, sent, payload, encrypted=encrypted)
        headers["proof"] = self.me.proof(sent, body, **claims)
        last = not kind.endswith(".progress")
        self.publishing.basic_publish("bus.updates", got.reply_to, body, sent, mandatory=last)


def copied(got: BasicProperties, headers: dict[str, Any]) -> BasicProperties:
    """Return the properties of a copy, without the headers that "Make a retry copy" names."""
    kept = {n: v for n, v in got.headers.items() if not n.startswith(("x-", "dead-"))}
    names = ("message_id", "type", "app_id", "content_type", "timestamp", "reply_to")
    same = {name: getattr(got, name) for name in (*names, "correlation_id")}
    return BasicProperties(**same, delivery_mode=2, headers={**kept, **headers})


def now() -> int:
    return int(time.time() * 1000)


def bind(worker: Worker, handler: Handler, got: BasicProperties, job: Any) -> object:
    attempt = got.headers.get("attempt", 1)
    print(f"binder: {job['title']}, attempt {attempt}", flush=True)
    if job["title"] == "Sand":
        raise Refused("invalid_argument", "a book of sand cannot be bound")
    worker.progress(handler, got, (0.5, "the glue dries", None))
    if attempt == 1:
        raise Temporary("the glue is cold")
    return {"cover": "linen"}


def scanned(_worker: Worker, _handler: Handler, _got: BasicProperties, event: Any) -> None:
    print(f"binder: {event['title']} is scanned", flush=True)


def main() -> None:
    """Serve until SIGTERM or Ctrl-C: section "Stop"."""
    jobs = Handler(
        act=bind, type="binder.bind.v1", queue="binder.jobs.bind.v1", right="call", encrypted=True
    )
    queue = "binder.events.stacks.scanned.v1"
    events = Handler(act=scanned, type="stacks.scanned.v1", queue=queue, right="publish")
    worker = Worker(Identity("binder"), [jobs, events])
    stopped = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.append(True))
    print("binder: ready", flush=True)
    while not stopped:
        worker.connection.process_data_events(1)
    worker.connection.close()  # the broker delivers the messages without an ack again


if __name__ == "__main__":
    main()
