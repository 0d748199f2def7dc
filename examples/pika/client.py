"""Synchronous client with pika: requests, an event and a job, signed and encrypted.

Each step names its section of docs/reference/wire-client.md.
Run it beside the service of library.py: python -m examples.pika.client
"""

import json
import os
import secrets
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pika
from pika import BasicProperties
from pika.exceptions import UnroutableError

from examples.pika.security import Identity, Refused

EXCHANGES = ["bus.requests", "bus.jobs", "bus.events", "bus.replies", "bus.updates", "bus.dead"]
WEEK = 7 * 24 * 3600


class Failed(Exception):
    """Error that ended a call."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}")


def connected(name: str) -> pika.BlockingConnection:
    """Do the steps of section "Connect"."""
    parameters = pika.URLParameters(os.environ["BUS_URL"])
    parameters.heartbeat, parameters.blocked_connection_timeout = 10, 30
    parameters.client_properties = {"connection_name": name}
    connection = pika.BlockingConnection(parameters)
    with connection.channel() as channel:
        for exchange in EXCHANGES:
            channel.exchange_declare(exchange, "topic", durable=True)
    return connection


def message(me: Identity, type_: str, **properties: Any) -> BasicProperties:
    """Do the steps of section "Fill in a message", for a message without a cause."""
    own = str(uuid.uuid4())
    trace = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    headers = {"correlation-id": own, "traceparent": trace, **properties.pop("headers", {})}
    common: dict[str, Any] = {
        "message_id": own,
        "app_id": me.name,
        "content_type": "application/json",
    }
    common |= {"type": type_, "timestamp": int(time.time()), "headers": headers}
    return BasicProperties(**{**common, **properties})


def encoded(me: Identity, sent: BasicProperties, payload: object, *, encrypted: bool) -> bytes:
    """Encode the payload, and encrypt it if its contract requires this."""
    body = json.dumps(payload, ensure_ascii=False).encode()
    if encrypted:
        sent.headers["encryption"] = "jwe"
        body = me.encrypt(sent, body)
    return body


def lasting(me: Identity, type_: str, **properties: Any) -> BasicProperties:
    """Return the properties of an event or job."""
    headers = {"expires": int((time.time() + WEEK) * 1000), "attempt": 1}
    return message(me, type_, delivery_mode=2, headers=headers, **properties)


class Client:
    """Connection of one service, for one thread."""

    def __init__(self, me: Identity) -> None:
        self.me, self.connection = me, connected(me.name)
        self.publishing, self.calling = self.connection.channel(), self.connection.channel()
        self.publishing.confirm_delivery()
        # Section "Declare a queue for answers"
        self.replies = f"{me.name}.replies.{uuid.uuid4().hex}"
        self.calling.queue_declare(self.replies, exclusive=True)
        for exchange in ("bus.replies", "bus.updates"):
            self.calling.queue_bind(self.replies, exchange, self.replies)
        self.waiting: dict[str, list[tuple[BasicProperties, bytes] | None]] = {}
        self.calling.basic_consume(self.replies, self._answered, auto_ack=True)
        self.calling.add_on_return_callback(self._returned)

    def _answered(self, _channel: Any, _method: Any, got: BasicProperties, body: bytes) -> None:
        if got.correlation_id in self.waiting:
            self.waiting[got.correlation_id].append((got, body))

    def _returned(self, _channel: Any, _method: Any, sent: BasicProperties, _body: bytes) -> None:
        if sent.message_id in self.waiting:
            self.waiting[sent.message_id].append(None)

    def _answers(
        self, sent: BasicProperties, proof: str, end: float, *, encrypted: bool
    ) -> Iterator[tuple[str, Any]]:
        """Yield the types and payloads of the answers that pass their check, until the end."""
        dropped = ""
        while (left := end - time.time()) > 0:
            self.connection.process_data_events(left)
            arrived, self.waiting[sent.message_id] = self.waiting[sent.message_id], []
            for answer in arrived:
                if answer is None:
                    raise Failed("unavailable", f"no service serves {sent.type}")
                got, body = answer
                try:
                    self.me.check_answer(got, body, sent.type.split(".")[0], proof)
                    if encrypted and got.type != "bus.error.v1":
                        body = self.me.decrypt(got, body)
                    payload = json.loads(body)
                except (Refused, ValueError) as error:
                    dropped = f", and an answer was dropped: {error}"
                    continue
                if got.type == "bus.error.v1":
                    if not isinstance(payload, dict) or not {"code", "message"} <= set(payload):
                        raise Failed("invalid_argument", "the error has another form")
                    raise Failed(payload["code"], payload["message"])
                yield got.type, payload
        raise Failed("deadline_exceeded", f"no answer in time{dropped}")

    def request(
        self, type_: str, payload: object, *, timeout: float, encrypted: bool = False
    ) -> Any:
        """Do the steps of section "Send a request"."""
        end, left = time.time() + timeout, str(int(timeout * 1000))
        headers = {"deadline": int(end * 1000)}
        sent = message(self.me, type_, headers=headers, expiration=left, delivery_mode=1)
        sent.reply_to = self.replies
        body = encoded(self.me, sent, payload, encrypted=encrypted)
        service, permission = type_.split(".", maxsplit=1)[0], type_.rpartition(".")[0]
        sent.headers["authorization"] = token = self.me.token(service, permission)
        self.waiting[sent.message_id] = []
        try:
            self.calling.basic_publish("bus.requests", type_, body, sent, mandatory=True)
            for kind, answer in self._answers(sent, token, end, encrypted=encrypted):
                if kind != type_ + ".reply":
                    raise Failed("unknown", f"an answer of type {kind}")
                return answer
        finally:
            del self.waiting[sent.message_id]

    def publish(self, type_: str, payload: object) -> None:
        """Do the steps of section "Publish an event"; pika waits for the confirm."""
        sent = lasting(self.me, type_)
        body = encoded(self.me, sent, payload, encrypted=False)
        sent.headers["proof"] = self.me.proof(sent, body)
        self.publishing.basic_publish("bus.events", type_, body, sent)

    def submit(
        self, type_: str, payload: object, *, timeout: float, encrypted: bool = False
    ) -> Iterator[tuple[str, Any]]:
        """Do the steps of section "Submit a job", and yield its progress and its result."""
        sent = lasting(self.me, type_, reply_to=self.replies)
        body = encoded(self.me, sent, payload, encrypted=encrypted)
        sent.headers["proof"] = proof = self.me.proof(sent, body)
        self.waiting[sent.message_id] = []
        try:
            self.publishing.basic_publish("bus.jobs", type_, body, sent, mandatory=True)
            end = time.time() + timeout
            for kind, update in self._answers(sent, proof, end, encrypted=encrypted):
                if kind in (type_ + ".progress", type_ + ".reply"):
                    yield kind.rpartition(".")[2], update
                if kind == type_ + ".reply":
                    return
        except UnroutableError as error:
            raise Failed("unavailable", f"no service serves {type_}") from error
        finally:
            del self.waiting[sent.message_id]


def main() -> None:
    client = Client(Identity("reader"))
    try:
        talk(client)
    finally:
        client.connection.close()


def talk(client: Client) -> None:
    for title, timeout in (("Emma", 10.0), ("Ulysses", 10.0), ("Sand", 0.3)):
        try:
            found = client.request(
                "stacks.find.v1", {"title": title}, timeout=timeout, encrypted=True
            )
            print(f"answer: {found['shelf']}")
        except Failed as error:
            print(f"error: {str(error).partition(':')[0]}")
    try:
        client.request("stacks.burn.v1", {"title": "Emma"}, timeout=10)
    except Failed as error:
        print(f"not served: {error}")
    client.publish("reader.wished.v1", {"title": "Emma"})
    for kind, update in client.submit(
        "stacks.scan.v1", {"title": "Emma"}, timeout=30, encrypted=True
    ):
        print(f"{kind}: {update}")


if __name__ == "__main__":
    main()
