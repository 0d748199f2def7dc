"""The attack table of the control channel: no attack gets an answer, and none is believed."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from bus.errors import PermissionDenied, ResourceExhausted, Unauthenticated
from bus.messaging.body_limit import without_body
from bus.messaging.control import (
    QUESTIONS,
    Announcement,
    FindMessages,
    GetInfo,
    GetStats,
    Ping,
    Question,
    Target,
)
from bus.messaging.envelope import Envelope, new_id
from bus.messaging.service_info import InstanceState
from bus.messaging.topology.addresses import Address
from bus.runtime.discovery import control_asker
from bus.runtime.discovery.announcements import build_announcement
from bus.runtime.discovery.limits import SeenIds
from bus.security.control_security import Access, ControlSecurity, Subject
from bus.security.grants import Grants
from bus.security.proofs import digest, message_proof
from tests.security.control_world import ControlWorld, Wire, settle
from tests.security.yard import NOW
from tests.unit.fakes import virtual

Attack = Callable[[ControlWorld], Envelope]


def other_body(world: ControlWorld) -> Envelope:
    asked = world.question(question=FindMessages(correlation_id="mine"))
    return asked.replace(body=FindMessages(correlation_id="of another").model_dump_json().encode())


def other_address(world: ControlWorld) -> Envelope:
    return world.question().replace(reply_to="answer.mail.1")


def signed_for_another_address(world: ControlWorld) -> Envelope:
    asked = world.question("auditor", reply_to="answer.mail.1")
    assert asked.reply_to == "answer.mail.1"
    return asked


def with_message_proof(world: ControlWorld) -> Envelope:
    asked = world.question()
    pair = world.rings["auditor"].signing_key()
    return asked.replace(proof=message_proof(pair, asked, now=NOW))


def of_a_revoked_key(world: ControlWorld) -> Envelope:
    asked = world.question()
    world.yard.public["auditor-1"]["compromised_since"] = 1
    world.rings["ledger"]._replace_keys(world.yard.text())
    return asked


def too_late(world: ControlWorld) -> Envelope:
    asked = world.question(window=1)
    world.yard.clock.now += 1 + 30 + 0.1
    return asked


UNPROVEN: dict[str, Attack] = {
    "no proof": lambda world: world.question().replace(proof=None),
    "signed by another service": lambda world: world.forged(world.question(), by="mail"),
    "another name": lambda world: world.question().replace(source="office"),
    "another id": lambda world: world.question().replace(id=new_id()),
    "another question": lambda world: world.question().replace(type=GetStats.name),
    "another body": other_body,
    "another address for the answers": other_address,
    "an address of another service": signed_for_another_address,
    "an address with a wildcard": lambda world: world.question(reply_to="answer.auditor.#"),
    "an address of commands, by a service": lambda world: world.question(reply_to="answer.bus.1"),
    "an address of a service, by an operator": lambda world: world.question(
        "ida", reply_to="answer.ida.1"
    ),
    "another service is asked": lambda world: world.question(target="ask.service.office"),
    "another instance is asked": lambda world: world.question(target="ask.instance.ledger.2"),
    "no target": lambda world: world.forged(world.question(), tgt=None),
    "an announcement as a question": lambda world: world.forged(world.question(), rto=None),
    "an answer as a question": lambda world: world.forged(
        world.question(), aud="answer.auditor.1", irt="x"
    ),
    "a message proof": with_message_proof,
    "the kind of a message proof": lambda world: world.forged(world.question(), typ="msg+jwt"),
    "after its window": too_late,
    "a longer window than signed": lambda world: world.question().replace(
        expires=int((NOW + 60) * 1000)
    ),
    "a window of more than a minute": lambda world: world.question(window=61),
    "a window that ends before it begins": lambda world: world.question(window=-1),
    "signed in the future": lambda world: world.forged(
        world.question(expires=int((NOW + 60) * 1000)), iat=NOW + 31
    ),
    "a key that was revoked": of_a_revoked_key,
    "a service as an operator": lambda world: world.forged(world.question(), role="operator"),
    "an operator as a service": lambda world: world.forged(world.question("ida"), role="service"),
    "no role": lambda world: world.forged(world.question(), role=None),
    "a role that does not exist": lambda world: world.forged(world.question(), role="admin"),
    "a role that is not text": lambda world: world.forged(world.question(), role=["service"]),
}
NOT_GRANTED: dict[str, Attack] = {
    "a service without the right": lambda world: world.question("mail"),
    "the state, by a caller that may only ask whether a service is alive": lambda world: (
        world.question("office", GetStats())
    ),
    "an operator without the right": lambda world: world.question("ops"),
}


@pytest.mark.parametrize("attack", UNPROVEN.values(), ids=UNPROVEN)
async def test_a_forged_question_is_not_answered(attack: Attack) -> None:
    world = await ControlWorld.started()
    discovery, wire = await world.process("ledger")
    wire.deliver(attack(world))
    await settle()
    assert wire.sent == []
    assert discovery.responder.refusals.counts == {"not proven": 1}


@pytest.mark.parametrize("attack", NOT_GRANTED.values(), ids=NOT_GRANTED)
async def test_a_question_without_the_right_is_not_answered(attack: Attack) -> None:
    world = await ControlWorld.started()
    discovery, wire = await world.process("ledger")
    wire.deliver(attack(world))
    await settle()
    assert wire.sent == []
    assert discovery.responder.refusals.counts == {"not granted": 1}


@pytest.mark.parametrize(
    ("asker", "question"),
    [
        *((name, each) for name in ("auditor", "ida", "boss") for each in (Ping(), GetStats())),
        ("office", Ping()),
    ],
)
async def test_the_same_questions_are_answered_to_an_asker_with_the_right(
    asker: str, question: Question[Any]
) -> None:
    world = await ControlWorld.started()
    _, wire = await world.process("ledger")
    asked = world.question(asker, question, target="ask.service.ledger")
    wire.deliver(asked)
    await settle()
    ((key, answer),) = wire.sent
    assert (key, answer.in_reply_to) == (asked.reply_to, asked.id)
    world.guard(asker).check_answer(answer, key)


@virtual
async def test_a_replayed_question_is_answered_once() -> None:
    world = await ControlWorld.started()
    discovery, wire = await world.process("ledger")
    asked = world.question(window=60)
    for later in (0, 1, 59, 80):
        world.yard.clock.now = NOW + later
        wire.deliver(asked)
        await settle()
    assert len(wire.sent) == 1
    assert discovery.responder.refusals.counts == {"replayed": 3}


@virtual
async def test_a_question_of_an_asker_with_a_fast_clock_cannot_be_replayed() -> None:
    world = await ControlWorld.started()
    discovery, wire = await world.process("ledger")
    world.yard.clock.now = NOW + 29
    asked = world.question(window=60)
    for later in (0, 60, 91, 118):
        world.yard.clock.now = NOW + later
        # Many other questions let the memory forget the ids that have ended.
        discovery.responder._seen._swept = float("-inf")
        discovery.responder._seen._max_ids = len(discovery.responder._seen) or 1
        discovery.responder._seen.add("x", 0)
        discovery.responder._seen._max_ids = 10_000
        wire.deliver(asked)
        await settle()
    assert len(wire.sent) == 1
    assert discovery.responder.refusals.counts == {"replayed": 3}


async def test_a_question_to_a_service_cannot_be_replayed_to_all() -> None:
    world = await ControlWorld.started()
    asked = world.question(target="ask.service.ledger")
    _, wire = await world.process("office")
    wire.deliver(asked)
    await settle()
    assert wire.sent == []


@virtual
async def test_if_the_memory_of_questions_is_full_a_question_is_refused_and_none_forgotten() -> (
    None
):
    world = await ControlWorld.started()
    discovery, wire = await world.process("ledger")
    discovery.responder._seen = SeenIds(2, clock=world.yard.clock)
    first = world.question(window=10)
    for asked in (first, world.question(window=10), world.question(window=10), first):
        wire.deliver(asked)
    await settle()
    assert len(wire.sent) == 2
    assert discovery.responder.refusals.counts == {"too many": 1, "replayed": 1}
    world.yard.clock.now += 10 + 30 + 1
    wire.deliver(world.question())
    await settle()
    assert len(wire.sent) == 3


class Pause(Question[InstanceState]):
    """An order of a later version."""

    name = "bus.control.pause.v1"
    right = "order"
    answer = InstanceState


@pytest.mark.parametrize("asker", ["auditor", "office", "mail", "ida", "ops"])
async def test_an_order_without_an_operators_key_and_right_is_refused(
    asker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(QUESTIONS, Pause.name, Pause)
    world = await ControlWorld.started()
    world.yard.grants = Grants(
        world.yard.grants.services,
        {**world.yard.grants.operators, asker: frozenset({"control.read"})},
    )
    discovery, wire = await world.process("ledger")
    wire.deliver(world.question(asker, Pause()))
    await settle()
    assert wire.sent == []
    assert discovery.responder.refusals.counts == {"not granted": 1}


async def test_a_service_with_the_name_of_an_operator_cannot_order() -> None:
    world = await ControlWorld.started()
    world.yard.key("boss", kid="boss-2")
    world.yard.private["boss"] = world.yard.private["boss"][-1:]
    for ring in world.rings.values():
        ring._replace_keys(world.yard.text())
    asked = world.question("auditor", Pause(), source="boss", reply_to="answer.bus.1")
    for kid in ("boss-1", "boss-2"):
        forged = world.forged(asked, by="boss", iss="boss", role="operator")
        header_kid = forged.replace(proof=(forged.proof or "").replace("boss-1", kid))
        with pytest.raises(Unauthenticated):
            world.guard("ledger").admit(header_kid, frozenset({"ask.all"}), "order")


async def test_an_operator_with_the_right_to_order_is_admitted() -> None:
    world = await ControlWorld.started()
    asked = world.question("boss", Pause())
    asker = world.guard("ledger").admit(asked, frozenset({"ask.all"}), "order")
    assert (asker.name, asker.role) == ("boss", "operator")
    with pytest.raises(PermissionDenied, match="may not give orders"):
        world.guard("ledger").admit(
            world.question("auditor", Pause()), frozenset({"ask.all"}), "order"
        )


# --- Answers and announcements ---


async def asked_by_the_auditor(
    world: ControlWorld, forge: Callable[[Envelope, Envelope], Envelope]
) -> tuple[list[Any], dict[str, int]]:
    """Ask the ledger, and deliver a changed answer. Return the answers and the drops."""
    auditor, wire = await world.process("auditor")
    asking = asyncio.ensure_future(auditor.ask(Ping(), Target("ledger"), window=0.05))
    await settle()
    question = wire.sent[0][1]
    ledger, answering = await world.process("ledger")
    answering.deliver(question)
    await settle()
    wire.deliver(forge(question, answering.sent[0][1]))
    await ledger.close()
    return await asking, dict(auditor.asker.dropped)


@virtual
async def test_a_genuine_answer_is_accepted() -> None:
    world = await ControlWorld.started()
    answers, dropped = await asked_by_the_auditor(world, lambda _, answer: answer)
    assert [each.record.service for each in answers] == ["ledger"]
    assert dropped == {}


def changed_body(answer: Envelope, **changes: Any) -> Envelope:
    record = InstanceState.model_validate_json(answer.body).model_copy(update=changes)
    return answer.replace(body=record.model_dump_json().encode())


def resigned(world: ControlWorld, answer: Envelope, by: str = "ledger", **claims: Any) -> Envelope:
    return world.forged(answer, by=by, **{"dig": digest(answer.body), **claims})


ANSWERS: dict[str, Callable[[ControlWorld, Envelope, Envelope], Envelope]] = {
    "not proven: no proof": lambda _, __, answer: answer.replace(proof=None),
    "not proven: a wrong audience": lambda world, _, answer: resigned(
        world, answer, aud="answer.mail.1"
    ),
    "not proven: another process of the audience": lambda world, _, answer: resigned(
        world, answer, aud="answer.auditor.2"
    ),
    "not proven: another name": lambda _, __, answer: answer.replace(source="office"),
    "not proven: another body": lambda _, __, answer: changed_body(answer, instance="2"),
    "not proven: signed by another service": lambda world, _, answer: resigned(
        world, answer, by="mail"
    ),
    "not proven: signed by an operator": lambda world, _, answer: resigned(
        world, answer.replace(source="ida"), by="ida", iss="ida", role="operator"
    ),
    "not proven: the answer to another question": lambda world, _, answer: resigned(
        world, answer, irt="another"
    ),
    "not proven: the question as its answer": lambda _, question, __: question.replace(
        type=f"{Ping.name}.reply", in_reply_to=question.id
    ),
    "of another instance: of a service that was not asked": lambda world, _, answer: resigned(
        world,
        changed_body(answer.replace(source="mail"), service="mail"),
        by="mail",
        iss="mail",
    ),
    "of another instance: in the name of another service": lambda world, _, answer: resigned(
        world, changed_body(answer, service="office")
    ),
    "malformed: of another type": lambda _, __, answer: answer.replace(
        type=f"{GetInfo.name}.reply"
    ),
    "malformed: no record": lambda world, _, answer: resigned(world, answer.replace(body=b"[]")),
    "late: without a question": lambda _, __, answer: answer.replace(in_reply_to="another"),
}


@pytest.mark.parametrize("name", ANSWERS)
@virtual
async def test_a_forged_answer_is_dropped_and_counted(name: str) -> None:
    world = await ControlWorld.started()
    answers, dropped = await asked_by_the_auditor(
        world, lambda question, answer: ANSWERS[name](world, question, answer)
    )
    assert answers == []
    assert dropped == {name.partition(":")[0]: 1}


@virtual
async def test_a_service_cannot_answer_for_another_one() -> None:
    world = await ControlWorld.started()
    auditor, wire = await world.process("auditor")
    asking = asyncio.ensure_future(auditor.ask(Ping(), window=0.05))
    await settle()
    _, answering = await world.process("mail")
    answering.deliver(wire.sent[0][1])
    await settle()
    wire.deliver(resigned(world, changed_body(answering.sent[0][1], service="ledger"), by="mail"))
    assert await asking == []
    assert auditor.asker.dropped == {"of another instance": 1}


@virtual
async def test_each_instance_answers_once() -> None:
    world = await ControlWorld.started()
    auditor, wire = await world.process("auditor")
    asking = asyncio.ensure_future(auditor.ask(Ping(), window=0.05))
    await settle()
    _, answering = await world.process("ledger")
    answering.deliver(wire.sent[0][1])
    await settle()
    for _ in range(3):
        wire.deliver(answering.sent[0][1])
    assert len(await asking) == 1
    assert auditor.asker.dropped == {"duplicate": 2}


def announced(world: ControlWorld, by: str = "ledger") -> Envelope:
    state = InstanceState(service=by, instance="1", started=1, state="ready")
    return build_announcement(world.member(by, Wire()), state, "started")


ANNOUNCED: dict[str, Callable[[ControlWorld], list[Envelope]]] = {
    "no proof": lambda world: [announced(world).replace(proof=None)],
    "signed by another service": lambda world: [world.forged(announced(world), by="mail")],
    "of another service": lambda world: [
        announced(world).replace(source="mail"),
        world.forged(
            announced(world).replace(source="mail"), by="mail", iss="mail", tgt="announce.mail"
        ),
    ],
    "another key": lambda world: [world.forged(announced(world), tgt="announce.mail")],
    "a question": lambda world: [world.question().replace(type="bus.control.announcement.v1")],
    "after its time": lambda world: [
        world.forged(announced(world).replace(expires=1), iat=0.5, exp=0.001)
    ],
}


@pytest.mark.parametrize("name", ANNOUNCED)
async def test_a_forged_announcement_is_not_believed(name: str) -> None:
    world = await ControlWorld.started()
    auditor, wire = await world.process("auditor")
    heard = auditor.announcements()
    await settle()
    for forged in ANNOUNCED[name](world):
        wire.deliver(forged, receiver=1)
    genuine = announced(world, "office")
    wire.deliver(genuine, receiver=1)
    wire.deliver(genuine, receiver=1)
    assert (await anext(heard)).service == "office"
    assert heard._waiting == type(heard._waiting)(maxlen=1000)  # type: ignore[attr-defined]
    await auditor.close()


async def test_a_replayed_announcement_is_heard_once() -> None:
    world = await ControlWorld.started()
    auditor, wire = await world.process("auditor")
    heard = auditor.announcements()
    await settle()
    first = announced(world)
    for message in (first, first, announced(world, "office"), first):
        wire.deliver(message, receiver=1)
    both = [await anext(heard), await anext(heard)]
    assert [each.service for each in both] == ["ledger", "office"]
    assert isinstance(both[0], Announcement)
    assert heard.dropped == {"replayed": 2}  # type: ignore[attr-defined]
    await auditor.close()


async def test_a_service_without_the_right_to_read_cannot_listen() -> None:
    world = await ControlWorld.started()
    office, _ = await world.process("office")
    with pytest.raises(PermissionDenied, match=r'\[services.office\] control = \["read"\]'):
        await anext(office.announcements())
    with pytest.raises(PermissionDenied, match="may not read the state"):
        await office.ask(GetInfo())
    with pytest.raises(PermissionDenied, match="may not ask whether"):
        await office.ask(Ping(), Target("mail"))
    await office.close()


async def test_a_command_that_knows_no_contracts_asks_the_services_that_it_may_call() -> None:
    world = await ControlWorld.started()

    def error(name: str, access: Access, service: str | None) -> PermissionDenied | None:
        subject = Subject(name=name, knows_contracts=False)
        guard = ControlSecurity(subject, world.rings[name], world.yard.current())
        return guard.may_ask(access, service)

    assert error("office", "ping", "elsewhere") is None, "the office may call something"
    assert error("mail", "ping", "elsewhere") is not None, "mail may call nothing"
    assert error("office", "ping", None) is not None
    assert error("office", "read", "elsewhere") is not None
    assert error("office", "order", "elsewhere") is not None


async def test_a_service_may_ask_whether_its_own_instances_are_alive_without_a_grant() -> None:
    world = await ControlWorld.started()
    guard = ControlSecurity(
        Subject(name="mail"), world.rings["mail"], world.yard.current(), clock=world.yard.clock
    )
    assert guard.may_ask("ping", "mail") is None
    assert guard.may_ask("read", "mail") is not None
    assert guard.may_ask("ping", "office") is not None
    question = world.question("mail", target="ask.mail")
    assert guard.admit(question, frozenset({"ask.mail"}), "ping").name == "mail"
    with pytest.raises(PermissionDenied):
        guard.admit(question, frozenset({"ask.mail"}), "read")
    office = ControlSecurity(
        Subject(name="office"), world.rings["office"], world.yard.current(), clock=world.yard.clock
    )
    with pytest.raises(PermissionDenied):
        office.admit(question, frozenset({"ask.mail"}), "ping")


# --- Floods, and the log ---


@virtual
async def test_a_flood_of_an_asker_gets_ten_answers_a_second() -> None:
    world = await ControlWorld.started()
    discovery, wire = await world.process("ledger")
    for _ in range(3):
        for _ in range(60):
            wire.deliver(world.question())
            await settle()
        await asyncio.sleep(1)
    assert len(wire.sent) == 30
    assert discovery.responder.refusals.counts == {"too many": 30, "flood": 120}


@virtual
async def test_a_flood_of_forgeries_costs_200_checks_a_second_and_a_line_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = await ControlWorld.started()
    discovery, wire = await world.process("ledger")
    forged = world.question().replace(proof=None)
    for number in range(1000):
        wire.deliver(forged.replace(source=f"victim-{number}"))
    counts = discovery.responder.refusals.counts
    assert counts == {"not proven": 200, "flood": 300}
    lines = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert len(lines) == 3
    assert "an unverified sender was refused, not proven" in lines[0]
    assert "an unverified sender was refused, flood" in lines[1]
    assert "more than 500 messages per second" in lines[2]
    assert "victim" not in caplog.text
    await asyncio.sleep(60)
    assert counts.total() == 1000
    caplog.clear()
    wire.deliver(forged)
    assert "more since the last line)" in caplog.text


@virtual
async def test_a_flood_without_a_key_leaves_the_checks_of_known_askers() -> None:
    world = await ControlWorld.started()
    discovery, wire = await world.process("ledger")
    forged = world.question().replace(proof="a.b.c")
    for _ in range(300):
        wire.deliver(forged)
    wire.deliver(world.question())
    wire.deliver(world.question("ida"))
    await settle()
    assert len(wire.sent) == 2
    assert discovery.responder.refusals.counts == {"not proven": 200, "flood": 100}


@virtual
async def test_a_flood_with_the_key_of_one_asker_leaves_the_checks_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = await ControlWorld.started()
    discovery, wire = await world.process("ledger")
    forged = world.forged(world.question("ida"), role="service")
    for _ in range(100):
        wire.deliver(forged)
    wire.deliver(world.question())
    await settle()
    assert len(wire.sent) == 1
    assert discovery.responder.refusals.counts == {"not proven": 20, "flood": 80}
    assert "more than 20 questions per second name a key of ida" in caplog.text


@virtual
async def test_a_ping_tells_for_a_minute_that_questions_could_be_lost() -> None:
    world = await ControlWorld.started()
    _, wire = await world.process("ledger")

    async def is_flooded() -> bool:
        wire.deliver(world.question())
        await settle()
        return InstanceState.model_validate_json(wire.sent[-1][1].body).flooded

    assert not await is_flooded()
    for _ in range(201):
        wire.deliver(world.question().replace(proof=None))
    assert await is_flooded()
    await asyncio.sleep(60)
    assert not await is_flooded()


@virtual
async def test_a_large_body_is_accepted_only_while_answers_are_expected() -> None:
    world = await ControlWorld.started()
    auditor, wire = await world.process("auditor")
    await auditor.ask(Ping(), window=0.05)
    assert wire.specs[0].max_body_bytes == 64 * 1024
    assert wire.body_limits == [2**20, 64 * 1024]


async def test_a_question_that_is_too_large_is_refused_with_its_own_limit(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = await ControlWorld.started()
    _, wire = await world.process("ledger")
    wire.deliver(without_body(world.question(), 100_000, 64 * 1024))
    assert "the question has 100000 bytes, the limit is 65536 bytes" in caplog.text
    assert "BUS_MAX_MESSAGE" not in caplog.text


@pytest.mark.parametrize("mode", ["off", "dev"])
@virtual
async def test_names_that_no_key_proves_share_one_line_a_minute(
    caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    world = await ControlWorld.started()
    _, wire = await world.process("ledger", mode=mode)
    for number in range(100):
        asker = f"forged-{number}"
        asked = Envelope(
            id=new_id(),
            type=Ping.name,
            role="control",
            source=asker,
            body=b"[",
            expires=int((NOW + 1) * 1000),
            reply_to=f"answer.{asker}.1",
        )
        if mode == "dev":
            guard = world.shared_guard(asker)
            asked = guard.sign_question(asked, "ask.all")
        wire.deliver(asked)
    (line,) = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert "a question of an unverified sender was refused, malformed" in line


async def test_answers_that_cannot_be_sent_are_bounded_and_further_ones_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await ControlWorld.started()
    discovery, wire = await world.process("ledger")
    is_free = asyncio.Event()
    send = wire.send

    async def hang(envelope: Envelope, address: Address) -> None:
        await is_free.wait()
        await send(envelope, address)

    monkeypatch.setattr(wire, "send", hang)
    for asker in ("auditor", "ida", "boss"):
        for _ in range(10):
            wire.deliver(world.question(asker))
    await settle()
    assert discovery.responder.refusals.counts == {"busy": 14}
    is_free.set()
    await settle()
    assert len(wire.sent) == discovery.responder.answered == 16


@virtual
async def test_the_answers_to_a_question_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_asker, "MAX_ANSWERS", 3)
    world = await ControlWorld.started()
    auditor, wire = await world.process("auditor")
    asking = asyncio.ensure_future(auditor.ask(Ping(), window=0.5))
    await settle()
    for number in range(5):
        _, answering = await world.process("ledger", str(number))
        answering.deliver(wire.sent[0][1])
        await settle()
        wire.deliver(answering.sent[0][1])
    assert len(await asking) == 3
    assert auditor.asker.dropped == {"too many": 2}


@virtual
async def test_the_questions_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_asker, "MAX_PENDING_QUESTIONS", 2)
    world = await ControlWorld.started()
    auditor, _ = await world.process("auditor")
    waiting = [asyncio.ensure_future(auditor.ask(Ping(), window=0.05)) for _ in range(2)]
    await settle()
    with pytest.raises(ResourceExhausted, match="2 questions of this process wait"):
        await auditor.ask(Ping())
    assert await asyncio.gather(*waiting) == [[], []]


@virtual
async def test_a_refused_asker_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    world = await ControlWorld.started()
    _, wire = await world.process("ledger")
    for asker in ("mail", "mail", "office", "mail"):
        wire.deliver(world.question(asker, GetStats()))
    lines = [each.getMessage() for each in caplog.records]
    assert [line.partition(" was refused")[0] for line in lines] == [
        "ledger: a question of mail",
        "ledger: a question of office",
    ]


async def test_a_question_with_an_unknown_key_is_refused_until_the_keys_were_read() -> None:
    world = await ControlWorld.started()
    world.yard.key("analyst", role="operator")
    world.rings["analyst"] = await world.yard.started("analyst")
    operators = {**world.yard.grants.operators, "analyst": frozenset({"control.read"})}
    world.yard.grants = Grants(world.yard.grants.services, operators)
    discovery, wire = await world.process("ledger")
    world.yard.clock.now += 11
    wire.deliver(world.question("analyst", reply_to="answer.bus.1"))
    await settle(10)
    wire.deliver(world.question("analyst", reply_to="answer.bus.1"))
    await settle()
    assert discovery.responder.refusals.counts == {"unknown key": 1}
    assert len(wire.sent) == 1


async def test_an_unknown_question_of_a_later_version_is_ignored_silently(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = await ControlWorld.started()
    discovery, wire = await world.process("ledger")
    wire.deliver(world.question("auditor", Pause()))
    await settle()
    assert (wire.sent, dict(discovery.responder.refusals.counts), caplog.text) == ([], {}, "")
