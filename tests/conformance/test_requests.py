"""Tests of requests: a service answers now, or the caller receives an error at once."""

import asyncio

import pytest

from bus.contracts.contract import Kind
from bus.errors import (
    BusError,
    ConfigurationError,
    ContractViolation,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    NotServed,
)
from bus.messaging.context import Context
from bus.messaging.topology.addresses import address_of
from bus.messaging.topology.declarations import reply_topology
from bus.runtime.router import Router
from tests.conformance.contracts import Ask, AskNewly, Hush, Word, Write
from tests.conformance.world import World, message, until

ANSWERS: tuple[tuple[Kind, str, tuple[str, ...]], ...] = (
    ("request", "desk.ask.v1", ("desk.ask.v1.reply",)),
    ("request", "desk.silence.v1", ("bus.error.v1",)),
    ("job", "desk.write.v1", ("desk.write.v1.progress", "desk.write.v1.reply")),
)


def echo() -> Router:
    router = Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        return Word(text=f"so {request.text}")

    @router.request(Hush)
    async def hush(request: Hush) -> None:
        return None

    return router


async def test_a_request_is_answered_with_its_reply(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    await world.serve(desk, echo())
    assert await client.request(Ask(text="be it"), timeout=30) == Word(text="so be it")
    await client.request(Hush(), timeout=30)


async def test_whatever_is_answered_has_the_question_as_its_cause(world: World) -> None:
    """Check replies, errors, and the updates and results of jobs."""
    desk, client = await world.bus("desk"), await world.connect()
    router = Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        return Word(text="")

    @router.request(Hush)
    async def hush(request: Hush) -> None:
        raise NotFound("no such silence")

    @router.job(Write)
    async def write(job: Write, context: Context) -> Word:
        await context.progress(0.5)
        return Word(text="")

    await world.serve(desk, router)
    topology = reply_topology("client", "1")
    (queue,) = topology.queues
    heard = await client.consume(queue, topology, acks=False)
    for role, type_, answers in ANSWERS:
        question = message(
            type=type_,
            role=role,
            source="client",
            reply_to=queue.name,
            correlation_id="whole",
            causation_id="before",
        )
        await client.send(question, address_of(role, type_))
        for answer in answers:
            said = (await heard.next()).envelope
            assert (said.type, said.correlation_id, said.causation_id, said.in_reply_to) == (
                answer,
                "whole",
                question.id,
                question.id,
            )


async def test_a_hundred_requests_at_once_each_get_their_own_reply(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    await world.serve(desk, echo())
    replies = await asyncio.gather(
        *(client.request(Ask(text=str(n)), timeout=30) for n in range(100))
    )
    assert [reply.text for reply in replies] == [f"so {n}" for n in range(100)]


@pytest.mark.parametrize(
    "error", [NotFound("no such thing"), FailedPrecondition("not yet"), InvalidArgument("never")]
)
async def test_a_domain_error_reaches_the_caller_with_code_and_text(
    world: World, error: BusError
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    router = Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        raise error

    await world.serve(desk, router)
    with pytest.raises(type(error), match=str(error)):
        await client.request(Ask(), timeout=30)


async def test_a_foreign_exceptions_text_does_not_reach_the_caller(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    router = Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        raise ValueError("reader Smith")

    await world.serve(desk, router)
    with pytest.raises(Internal) as caught:
        await client.request(Ask(), timeout=30)
    assert "Smith" not in str(caught.value)


async def test_a_payload_that_breaks_its_contract_is_the_callers_error_without_its_values(
    world: World,
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    await world.serve(desk, echo())
    with pytest.raises(InvalidArgument) as caught:
        await client.request(Ask.model_construct(text=["Smith"]), timeout=30)
    assert "Smith" not in str(caught.value)
    assert isinstance(caught.value, ContractViolation | InvalidArgument)


async def test_a_request_that_nobody_serves_is_not_served_at_once(world: World) -> None:
    client = await world.bus("client")
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(NotServed, match=r"desk\.ask\.v1"):
        await client.request(Ask(), timeout=60)
    assert loop.time() - began < 20


async def test_a_request_of_a_version_that_nobody_serves_is_not_served_and_reaches_no_older_worker(
    world: World,
) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    await world.serve(desk, echo())
    with pytest.raises(NotServed, match=r"desk\.ask\.v2"):
        await client.request(AskNewly(), timeout=30)
    assert await client.request(Ask(text="1"), timeout=30) == Word(text="so 1")


async def test_a_request_is_not_served_once_its_last_server_has_been_gone_for_a_minute(
    virtual_world: World,
) -> None:
    desk, client = await virtual_world.bus("desk"), await virtual_world.bus("client")
    async with desk.serving(echo()):
        await client.request(Ask(), timeout=30)
    await asyncio.sleep(61)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(NotServed):
        await client.request(Ask(), timeout=30)
    assert loop.time() - began < 1


async def test_a_request_waits_until_its_deadline_if_its_last_server_has_just_stopped(
    virtual_world: World,
) -> None:
    desk, client = await virtual_world.bus("desk"), await virtual_world.bus("client")
    async with desk.serving(echo()):
        await client.request(Ask(), timeout=30)
    await asyncio.sleep(20)
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(DeadlineExceeded):
        await client.request(Ask(), timeout=30)
    assert loop.time() - began > 29


async def test_a_request_is_answered_by_a_server_that_starts_within_a_minute_after_the_last(
    virtual_world: World,
) -> None:
    desk, client = await virtual_world.bus("desk"), await virtual_world.bus("client")
    async with desk.serving(echo()):
        pass
    waiting = asyncio.ensure_future(client.request(Ask(text="1"), timeout=50))
    await asyncio.sleep(40)
    async with desk.serving(echo()):
        assert await waiting == Word(text="so 1")


async def test_a_request_whose_time_is_over_is_not_handled_by_a_server_that_comes_later(
    virtual_world: World,
) -> None:
    desk, client = await virtual_world.bus("desk"), await virtual_world.bus("client")
    handled = []
    router = Router("desk")

    @router.request(Ask)
    async def ask(request: Ask) -> Word:
        handled.append(request.text)
        return Word(text="")

    async with desk.serving(router):
        pass
    with pytest.raises(DeadlineExceeded):
        await client.request(Ask(text="stale"), timeout=30)
    async with desk.serving(router):
        await client.request(Ask(text="fresh"), timeout=30)
    assert handled == ["fresh"]


async def test_requests_in_hand_are_bounded_by_the_handlers_concurrency(world: World) -> None:
    desk, client = await world.bus("desk"), await world.bus("client")
    running, most, router = 0, 0, Router("desk")

    @router.request(Ask, concurrency=3)
    async def ask(request: Ask) -> Word:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.05)
        running -= 1
        return Word(text="")

    await world.serve(desk, router)
    await asyncio.gather(*(client.request(Ask(), timeout=30) for _ in range(15)))
    assert most == 3


async def test_a_router_of_another_name_is_refused(world: World) -> None:
    desk = await world.bus("desk")
    with pytest.raises(ConfigurationError, match=r"desk.*shop"):
        async with desk.serving(Router("shop")):
            pass


async def test_a_request_waits_for_its_service_and_is_handled_once(world: World) -> None:
    desk, client, asked = await world.bus("desk"), await world.bus("client"), list[str]()
    router = Router("desk")

    @router.request(AskNewly)
    async def ask(request: AskNewly) -> Word:
        asked.append(request.text)
        return Word(text=request.text)

    texts = [f"{number}" for number in range(20)]
    waiting = [
        asyncio.create_task(client.request(AskNewly(text=each), timeout=30, wait_for_service=True))
        for each in texts
    ]
    with pytest.raises(NotServed):
        await client.request(AskNewly(text="impatient"), timeout=30)
    await world.serve(desk, router)
    assert [word.text for word in await asyncio.gather(*waiting)] == texts
    assert sorted(asked) == sorted(texts)


async def test_a_service_that_does_not_start_in_time_is_not_served(world: World) -> None:
    client, errors = await world.bus("client"), list[str]()

    async def is_not_served() -> bool:
        with pytest.raises((NotServed, DeadlineExceeded)) as caught:
            await client.request(AskNewly(text=""), timeout=0.3, wait_for_service=True)
        errors.append(str(caught.value))
        return isinstance(caught.value, NotServed)  # a busy broker can answer the last publish late

    await until(is_not_served, "the refusal")
    assert "the service desk did not start to serve it within 0.3 s" in errors.pop()
