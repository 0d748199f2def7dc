"""Answers of a service with a valid key and hostile values: each drops only itself."""

import asyncio
import json
import logging
from typing import Any

import pytest

from bus.messaging.control import (
    FindMessages,
    GetInfo,
    GetStats,
    Ping,
    Question,
)
from bus.messaging.envelope import REPLY_SUFFIX, Envelope, new_id
from bus.runtime.discovery import control_asker
from bus.runtime.discovery.discovery import Discovery
from tests.security.control_world import ControlWorld, Wire, settle
from tests.unit.fakes import virtual

INFINITY, NOT_A_NUMBER, HUGE = "@INF", "@NAN", "@BIG"
"""Marks of numbers that a test cannot write as JSON with the standard library."""
LABELS = {"operation": "mail.send", "version": "1", "kind": "request", "outcome": "ok"}
HANDLER = {
    "operation": "mail.send",
    "version": 1,
    "kind": "request",
    "queue": "mail.requests.send.v1",
    "slots": 1,
    "free": 1,
    "in_flight": 0,
}
MESSAGE = {"action": "sent", "id": "1", "type": "mail.send.v1", "source": "mail", "at": 1}


def series(**values: Any) -> dict[str, Any]:
    return {"series": [{"name": "messages.handled", "labels": LABELS, **values}]}


def handler(**values: Any) -> dict[str, Any]:
    return {"handlers": [{**HANDLER, **values}]}


def message(**values: Any) -> dict[str, Any]:
    return {"messages": [{**MESSAGE, **values}]}


STATS, INFO, FIND = GetStats(), GetInfo(), FindMessages(correlation_id="cafe")
HOSTILE: dict[str, tuple[Question[Any], dict[str, Any]]] = {
    "an infinite value": (STATS, series(value=INFINITY)),
    "a value that is not a number": (STATS, series(value=NOT_A_NUMBER)),
    "an infinite duration": (STATS, series(max=INFINITY)),
    "a negative count": (STATS, series(count=-1)),
    "a huge number in a bucket": (STATS, series(buckets={"3": HUGE})),
    "a negative number in a bucket": (STATS, series(recent={"3": -1})),
    "a bucket that does not exist": (STATS, series(buckets={"9999": 1})),
    "a negative bucket": (STATS, series(recent={"-1": 1})),
    "an exemplar with an infinite value": (STATS, series(exemplars={"3": ["a", INFINITY, 1]})),
    "an exemplar with a huge time": (STATS, series(exemplars={"3": ["a", 1, HUGE]})),
    "a report in the far future": (STATS, series(last=10**18)),
    "a huge number of slots": (STATS, handler(slots=HUGE)),
    "a negative number of slots": (STATS, handler(free=-5)),
    "an error in the far past": (STATS, handler(last_error={"code": "x", "at": -(10**18)})),
    "a name with control characters": (STATS, handler(operation="a\x1b[2J")),
    "a begin in the far future": (STATS, {"since": 10**18}),
    "too many label sets": (
        STATS,
        {"series": [{"name": "x", "labels": {"n": str(n)}} for n in range(502)]},
    ),
    "a start in the far future": (Ping(), {"started": 10**18}),
    "a huge start": (Ping(), {"started": HUGE}),
    "a huge number of entries": (Ping(), {"left_out": HUGE}),
    "a line end in a name": (Ping(), {"version": "1\n2"}),
    "a long name": (Ping(), {"version": "1" * 256}),
    "a long list of contracts": (INFO, {"contracts": [None] * 10_000}),
    "a message in the far future": (FIND, message(at=10**18)),
    "an infinite action": (FIND, message(seconds=INFINITY)),
    "a huge attempt": (FIND, message(attempt=HUGE)),
    "a long type": (FIND, message(type="x" * 10_001)),
}


def body_of(service: str, values: dict[str, Any], instance: str = "evil") -> bytes:
    record = {
        "service": service,
        "instance": instance,
        "started": 1,
        "state": "ready",
        "since": 1,
        "bus_version": "1",
        "python_version": "3",
        **values,
    }
    text = json.dumps(record)
    for mark, number in ((INFINITY, "1e999"), (NOT_A_NUMBER, "NaN"), (HUGE, "1" + "0" * 4000)):
        text = text.replace(f'"{mark}"', number)
    return text.encode()


def answer_of(world: ControlWorld, question: Envelope, body: bytes, by: str = "mail") -> Envelope:
    """Return an answer with a valid proof of the service `by`."""
    answer = Envelope(
        id=new_id(),
        type=f"{question.type}{REPLY_SUFFIX}",
        role="control",
        source=by,
        body=body,
        expires=int((world.yard.clock() + 60) * 1000),
        in_reply_to=question.id,
    )
    return world.guard(by).sign_answer(answer, question.reply_to or "")


async def asked(
    world: ControlWorld, question: Question[Any]
) -> tuple[Discovery, Wire, "asyncio.Future[Any]"]:
    auditor, wire = await world.process("auditor")
    asking = asyncio.ensure_future(auditor.ask(question, window=0.05))
    await settle()
    return auditor, wire, asking


@pytest.mark.parametrize("name", HOSTILE)
@virtual
async def test_an_answer_with_a_hostile_value_drops_only_itself(name: str) -> None:
    question, values = HOSTILE[name]
    world = await ControlWorld.started()
    auditor, wire, asking = await asked(world, question)
    sent = wire.sent[0][1]
    wire.deliver(answer_of(world, sent, body_of("mail", values)))
    wire.deliver(answer_of(world, sent, body_of("ledger", {}, "good"), by="ledger"))

    assert [each.record.service for each in await asking] == ["ledger"]
    assert auditor.asker.dropped == {"malformed": 1}


@virtual
async def test_the_dropped_answers_of_a_service_are_one_log_line_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = await ControlWorld.started()
    auditor, wire, asking = await asked(world, Ping())
    with caplog.at_level(logging.WARNING, "bus.discovery"):
        for number in range(5):
            values = {"started": HUGE}
            wire.deliver(answer_of(world, wire.sent[0][1], body_of("mail", values, str(number))))
        await asking

    assert auditor.asker.dropped == {"malformed": 5}
    (record,) = caplog.records
    text = record.getMessage()
    assert text.startswith("auditor: an answer of mail was refused, malformed: a value of the")
    assert "0000" not in text


@virtual
async def test_a_service_with_many_answers_leaves_room_for_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control_asker, "MAX_ANSWERS_OF_SERVICE", 3)
    monkeypatch.setattr(control_asker, "MAX_ANSWERS", 5)
    world = await ControlWorld.started()
    auditor, wire, asking = await asked(world, Ping())
    sent = wire.sent[0][1]
    for number in range(10):
        wire.deliver(answer_of(world, sent, body_of("mail", {}, str(number))))
    wire.deliver(answer_of(world, sent, body_of("ledger", {}, "1"), by="ledger"))

    assert [each.record.service for each in await asking] == ["mail"] * 3 + ["ledger"]
    assert auditor.asker.dropped == {"too many": 7}


@virtual
async def test_the_bytes_of_the_answers_of_one_service_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = body_of("mail", {})
    monkeypatch.setattr(control_asker, "MAX_BYTES_OF_SERVICE", len(body) + 10)
    world = await ControlWorld.started()
    auditor, wire, asking = await asked(world, Ping())
    wire.deliver(answer_of(world, wire.sent[0][1], body))
    wire.deliver(answer_of(world, wire.sent[0][1], body_of("mail", {}, "two")))

    assert len(await asking) == 1
    assert auditor.asker.dropped == {"too many": 1}
