"""Validators and serializers of a contract that end with `sys.exit` or a similar error."""

import asyncio
import logging
import sys

import pytest
from pydantic import field_serializer, field_validator

from bus.contracts.contract import Catalog, Job, Message, Request, contract
from bus.errors import Internal, InvalidArgument
from bus.runtime.router import Router
from bus.testing import MemoryBuses
from tests.unit.runtime.in_memory import in_memory

SECRET = "Eleonora Quist"


class Sorted(Message):
    name: str

    @field_serializer("name")
    def _write(self, name: str) -> str:
        if name == SECRET:
            sys.exit(SECRET)
        return name


def exit_at(name: str) -> str:
    if name == SECRET:
        sys.exit(SECRET)
    if name == "generator":
        raise GeneratorExit(SECRET)
    if name == "cancelled":
        raise asyncio.CancelledError(SECRET)
    return name


@contract("orchard.sort", version=1)
class Sort(Request[Sorted]):
    name: str

    _exit = field_validator("name")(exit_at)


@contract("orchard.crush", version=1)
class Crush(Job[Sorted]):
    name: str

    _exit = field_validator("name")(exit_at)


def sorting(result: str = "cider") -> tuple[Router, list[str]]:
    router, runs = Router("orchard"), list[str]()

    async def sort(message: Sort | Crush) -> Sorted:
        runs.append(message.name)
        return Sorted(name=result)

    router.request(Sort)(sort)
    router.job(Crush)(sort)
    return router, runs


@pytest.mark.parametrize(
    ("name", "error"),
    [
        (SECRET, "SystemExit"),
        ("generator", "GeneratorExit"),
        ("cancelled", "CancelledError"),
    ],
)
def test_a_validator_that_exits_is_the_callers_invalid_argument_and_the_worker_goes_on(
    name: str, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        router, runs = sorting()
        orchard, client = await buses.bus("orchard"), await buses.bus("client")
        await buses.serve(orchard, router)
        with pytest.raises(InvalidArgument, match=f"a validator raised {error}") as caught:
            await client.request(Sort.model_construct(name=name))
        assert SECRET not in str(caught.value)
        job = await client.submit(Crush.model_construct(name=name))
        with pytest.raises(InvalidArgument, match=f"a validator raised {error}"):
            await job.result()
        await buses.settled()
        (letter,) = await orchard.dead_letters("orchard.jobs.crush.v1")
        record = letter.record
        assert (record.code, record.attempts) == ("invalid_argument", 1)
        assert str(record.where).endswith(" exit_at")
        assert await client.request(Sort(name="apple")) == Sorted(name="cider")
        assert runs == ["apple"]

    with caplog.at_level(logging.INFO):
        run()
    assert SECRET not in caplog.text


def test_a_serializer_that_exits_is_a_fault_of_the_service_and_never_retried(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @in_memory
    async def run(buses: MemoryBuses) -> None:
        router, runs = sorting(result=SECRET)
        orchard, client = await buses.bus("orchard"), await buses.bus("client")
        await buses.serve(orchard, router)
        with pytest.raises(Internal, match="the field `name`"):
            await client.request(Sort(name="apple"))
        job = await client.submit(Crush(name="pear"))
        with pytest.raises(Internal, match="the field `name`"):
            await job.result()
        assert runs == ["apple", "pear"]

    with caplog.at_level(logging.INFO):
        run()
    assert SECRET not in caplog.text


def test_a_validator_that_exits_at_a_sample_does_not_end_the_import() -> None:
    def always(_: object) -> str:
        sys.exit(SECRET)

    class Exiting(Message):
        name: str

        _exit = field_validator("name")(always)

    contract("orchard.exit", version=1, catalog=Catalog())(type("Exit", (Request[Exiting],), {}))
