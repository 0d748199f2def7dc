"""Faults of a service's own code, from the sender to the dead letters, on the broker in memory."""

import asyncio
import logging
import re
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import field_validator
from typing_extensions import override

from bus.contracts.contract import Event, Job, Message, Request, contract
from bus.contracts.retry_policy import RetryPolicy
from bus.errors import BusError, Internal, InvalidArgument, NotFound, NotServed, Unavailable
from bus.messaging.context import Context
from bus.runtime.router import Router
from bus.testing import MemoryBuses
from tests.polling import until
from tests.unit.runtime.in_memory import in_memory

SECRET = "Eleonora Quist"


class Fruit(Message):
    name: str
    weight: int = 1


def _reject(error: type[Exception], name: str) -> str:
    if name == SECRET:
        raise error(SECRET)
    return name


@contract("orchard.pick", version=1)
class Pick(Request[Fruit]):
    name: str

    @field_validator("name")
    @classmethod
    def _look_up(cls, name: str) -> str:
        return _reject(KeyError, name)


@contract("orchard.press", version=1)
class Press(Job[Fruit]):
    name: str = ""

    @field_validator("name")
    @classmethod
    def _look_up(cls, name: str) -> str:
        return _reject(AttributeError, name)


@contract("orchard.ripe", version=1)
class Ripe(Event):
    name: str = ""


JOBS, EVENTS = "orchard.jobs.press.v1", "orchard.events.orchard.ripe.v1"


class Service:
    """The service `orchard`, which counts how often its handlers run."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.runs = 0
        self.router = Router("orchard")
        self.router.request(Pick)(self.handle)
        self.router.job(Press)(self.handle)
        self.router.event(Ripe, retry=RetryPolicy(attempts=2))(self.handle)
        self._work = work

    async def handle(self, message: Any) -> Any:
        self.runs += 1
        return self._work()


async def dead_letter(buses: MemoryBuses, bus: Any, queue: str) -> Any:
    await until(lambda: buses.broker.depth(f"{queue}.dead") == 1, "the dead letter")
    (letter,) = await bus.dead_letters(queue)
    return letter.record


# --- A validator of the contract that raises another exception than ValueError ---


@in_memory
async def test_a_validator_that_raises_at_the_receiver_is_the_callers_invalid_argument(
    buses: MemoryBuses,
) -> None:
    service = Service(lambda: Fruit(name="apple"))
    orchard, client = await buses.bus("orchard"), await buses.bus("client")
    await buses.serve(orchard, service.router)
    with pytest.raises(InvalidArgument) as caught:
        await client.request(Pick.model_construct(name=SECRET))
    assert "orchard.pick.v1: a validator raised KeyError" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert (caught.value.retryable, service.runs) == (False, 0)


def test_the_log_has_the_place_where_a_validator_failed(caplog: pytest.LogCaptureFixture) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        orchard, client = await buses.bus("orchard"), await buses.bus("client")
        await buses.serve(orchard, Service(lambda: Fruit(name="apple")).router)
        with pytest.raises(InvalidArgument):
            await client.request(Pick.model_construct(name=SECRET))

    with caplog.at_level(logging.INFO, "bus.messages"):
        run()
    (record,) = [each for each in caplog.records if each.name == "bus.messages"]
    assert re.search(r"test_service_faults\.py:\d+ _reject", record.getMessage())
    assert SECRET not in caplog.text


@in_memory
async def test_a_job_whose_validator_raises_is_dead_lettered_at_once(buses: MemoryBuses) -> None:
    service = Service(lambda: Fruit(name="cider"))
    orchard, client = await buses.bus("orchard"), await buses.bus("client")
    await buses.serve(orchard, service.router)
    job = await client.submit(Press.model_construct(name=SECRET))
    with pytest.raises(InvalidArgument, match="a validator raised AttributeError"):
        await job.result()
    record = await dead_letter(buses, orchard, JOBS)
    assert (record.code, record.attempts, service.runs) == ("invalid_argument", 1, 0)
    assert SECRET not in str(record)


# --- A handler that acts before it raises ---


@pytest.mark.parametrize(
    ("raised", "arrives"), [(KeyError(), Internal), (Unavailable("no ladder"), Unavailable)]
)
def test_an_error_of_a_handler_does_not_tell_what_the_handler_did_before(
    raised: Exception, arrives: type[BusError]
) -> None:
    # errors.md, "Send a message again". `Unavailable` of the bus itself has the same form.
    picked = list[str]()

    def pick_and_fail() -> None:
        picked.append("apple")
        raise raised

    @in_memory
    async def run(buses: MemoryBuses) -> None:
        orchard, client = await buses.bus("orchard"), await buses.bus("client")
        await buses.serve(orchard, Service(pick_and_fail).router)
        with pytest.raises(arrives) as caught:
            await client.request(Pick(name="apple"))
        assert type(caught.value) is arrives
        assert (caught.value.maybe_executed, caught.value.retryable) == (False, True)

    run()
    assert picked == ["apple"]


@in_memory
async def test_not_served_at_a_caller_never_comes_from_a_handler(buses: MemoryBuses) -> None:
    def fail() -> None:
        raise NotServed("no basket")

    orchard, client = await buses.bus("orchard"), await buses.bus("client")
    await buses.serve(orchard, Service(fail).router)
    with pytest.raises(Unavailable) as caught:
        await client.request(Pick(name="apple"))
    assert type(caught.value) is Unavailable


@in_memory
async def test_a_handler_that_runs_again_submits_a_second_job_with_another_key(
    buses: MemoryBuses,
) -> None:
    # delivery.md, "Two messages with one cause".
    orchard, router, jobs = await buses.bus("orchard"), Router("orchard"), list[tuple[str, str]]()

    @router.event(Ripe, retry=RetryPolicy(attempts=2, first_delay=1))
    async def on_ripe(event: Ripe, context: Context) -> None:
        await context.bus.submit(Press(name=context.idempotency_key))
        if context.envelope.attempt == 1:
            raise Unavailable("the event was not acked")

    @router.job(Press)
    async def press(job: Press, context: Context) -> Fruit:
        jobs.append((job.name, context.idempotency_key))
        return Fruit(name="juice")

    await buses.serve(orchard, router)
    await orchard.publish(Ripe(name="apple"))
    await buses.settled(retries=True)
    (cause, key), (second_cause, second_key) = jobs
    assert cause == second_cause
    assert key != second_key


# --- A result that does not match the contract ---

WRONG_RESULTS = {
    "returned the class Fruit, not an object of it. Write Fruit(…).": lambda: Fruit,
    "returned the class Ripe, not Fruit": lambda: Ripe,
    "returned str, not Fruit": lambda: SECRET,
    "the field `weight`": lambda: Fruit.model_construct(name="apple", weight=SECRET),
    "the field `name`": lambda: Fruit.model_construct(name="\ud800", weight=1),
}


@pytest.mark.parametrize("text", WRONG_RESULTS)
def test_a_reply_that_does_not_match_is_a_fault_of_the_service_and_names_the_field(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        service = Service(WRONG_RESULTS[text])
        orchard, client = await buses.bus("orchard"), await buses.bus("client")
        await buses.serve(orchard, service.router)
        with pytest.raises(Internal) as caught:
            await client.request(Pick(name="apple"))
        assert str(caught.value).startswith("orchard.pick.v1: the ")
        assert text in str(caught.value)
        assert (caught.value.retryable, caught.value.maybe_executed) == (False, True)
        assert service.runs == 1

    run()
    assert SECRET not in caplog.text


@pytest.mark.parametrize("text", WRONG_RESULTS)
def test_a_job_whose_result_does_not_match_is_done_once_and_dead_lettered(text: str) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        service = Service(WRONG_RESULTS[text])
        orchard, client = await buses.bus("orchard"), await buses.bus("client")
        await buses.serve(orchard, service.router)
        job = await client.submit(Press(name="apple"))
        with pytest.raises(Internal) as caught:
            await job.result()
        assert text in str(caught.value)
        assert not caught.value.retryable
        record = await dead_letter(buses, orchard, JOBS)
        assert (record.code, record.error, record.attempts) == ("internal", "InvalidResult", 1)
        assert text in record.reason
        assert SECRET not in str(record)
        assert service.runs == 1

    run()


def test_a_wrong_result_is_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        service = Service(lambda: None)
        orchard, client = await buses.bus("orchard"), await buses.bus("client")
        await buses.serve(orchard, service.router)
        with pytest.raises(Internal):
            await client.request(Pick(name="apple"))

    with caplog.at_level(logging.INFO, "bus.messages"):
        run()
    (record,) = [each for each in caplog.records if "InvalidResult" in str(vars(each))]
    assert record.levelno == logging.ERROR


# --- Long waits ---


@in_memory
async def test_a_message_waits_a_whole_day_for_its_next_attempt(buses: MemoryBuses) -> None:
    times: list[float] = []
    done = asyncio.Event()
    router = Router("orchard")

    @router.event(Ripe, retry=RetryPolicy(delays=(86_400,)))
    async def on_ripe(event: Ripe) -> None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            raise Unavailable("later")
        done.set()

    orchard = await buses.bus("orchard")
    await buses.serve(orchard, router)
    await orchard.publish(Ripe())
    await done.wait()
    assert times[1] - times[0] == pytest.approx(86_400, abs=1)


# --- Groups of errors, as a TaskGroup raises them ---


def failing(*errors: Exception) -> Callable[[], Any]:
    """Return work of a handler that raises the errors as nested groups."""

    def work() -> Any:
        raise ExceptionGroup(SECRET, [ExceptionGroup(SECRET, errors)])

    return work


@in_memory
async def test_a_single_error_in_a_group_reaches_the_caller_as_this_error(
    buses: MemoryBuses,
) -> None:
    service = Service(failing(NotFound("no such fruit")))
    orchard, client = await buses.bus("orchard"), await buses.bus("client")
    await buses.serve(orchard, service.router)
    with pytest.raises(NotFound, match=r"^orchard\.pick\.v1: no such fruit$"):
        await client.request(Pick(name="apple"))


@in_memory
async def test_a_group_of_permanent_errors_is_dead_lettered_at_once(buses: MemoryBuses) -> None:
    service = Service(failing(NotFound("no such fruit"), NotFound("no such tree")))
    orchard, client = await buses.bus("orchard"), await buses.bus("client")
    await buses.serve(orchard, service.router)
    job = await client.submit(Press(name="apple"))
    with pytest.raises(NotFound, match="no such fruit; NotFound: no such tree"):
        await job.result()
    record = await dead_letter(buses, orchard, JOBS)
    assert (record.code, record.error, record.attempts, service.runs) == (
        "not_found",
        "ExceptionGroup",
        1,
        1,
    )


@in_memory
async def test_a_group_with_an_error_that_may_pass_is_retried_to_the_end(
    buses: MemoryBuses,
) -> None:
    service = Service(failing(NotFound("no such fruit"), Unavailable("later")))
    orchard = await buses.bus("orchard")
    await buses.serve(orchard, service.router)
    await orchard.publish(Ripe(name="apple"))
    record = await dead_letter(buses, orchard, EVENTS)
    assert (record.code, record.attempts, service.runs) == ("internal", 2, 2)


class Mute(NotFound):
    """A user's error that raises when its text is read."""

    @override
    def __str__(self) -> str:
        raise KeyError(SECRET)


@in_memory
async def test_a_group_with_an_error_that_cannot_be_sent_is_an_internal_error(
    buses: MemoryBuses,
) -> None:
    service = Service(failing(NotFound("a"), Mute()))
    orchard, client = await buses.bus("orchard"), await buses.bus("client")
    await buses.serve(orchard, service.router)
    with pytest.raises(BusError, match="internal error while handling"):
        await client.request(Pick(name="apple"))
