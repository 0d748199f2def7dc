"""Test of examples/pika: programs without the bus, beside a service of the bus."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pika import BasicProperties

from bus import Bus, BusError
from examples.pika.client import message
from examples.pika.library import BindBook, router
from examples.pika.security import Identity, Refused

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


async def started(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments), env=environment, cwd=ROOT, stdout=pipe, stderr=pipe
    )


async def run(*arguments: str) -> str:
    """Run a program to its end, and return its output."""
    async with asyncio.timeout(PATIENCE):
        process = await started(*arguments)
        printed, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()
    return printed.decode()


async def printed(process: asyncio.subprocess.Process) -> str:
    """Return the next line of a program."""
    assert process.stdout
    assert process.stderr
    async with asyncio.timeout(PATIENCE):
        line = (await process.stdout.readline()).decode().rstrip("\n")
    assert line, (await process.stderr.read()).decode()
    return line


@pytest.fixture
async def keys(tmp_path: Path, vhost_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the keys of all three services, and set the variables that all of them read."""
    directory = tmp_path / "keys"
    await asyncio.gather(
        run("bus.cli", "keys", "new", "reader", "stacks", "binder", "--directory", str(directory)),
        run("bus.cli", "keys", "ring", "--directory", str(directory)),
    )
    for name, value in {
        "BUS_URL": vhost_url,
        "BUS_AUTH": "on",
        "BUS_KEY": str(directory),
        "BUS_JWKS": str(directory / "jwks.json"),
        "BUS_ENCRYPTION_KEYS": str(directory / "encryption.json"),
        "BUS_GRANTS": str(ROOT / "examples/pika/grants.toml"),
    }.items():
        monkeypatch.setenv(name, value)


@asynccontextmanager
async def working() -> AsyncIterator[asyncio.subprocess.Process]:
    worker = await started("examples.pika.worker")
    try:
        assert await printed(worker) == "binder: ready"
        yield worker
        worker.terminate()
        assert await worker.wait() == 0
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()


@pytest.mark.usefixtures("keys")
async def test_programs_with_pika_and_a_service_of_the_bus_understand_each_other(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with Bus("stacks") as stacks, stacks.serving(router), working() as worker:
        assert (await run("examples.pika.client")).splitlines() == [
            "answer: A3",
            "error: not_found",
            "error: deadline_exceeded",
            "not served: unavailable: no service serves stacks.burn.v1",
            "progress: {'progress': 0.5, 'note': 'page 1', 'error': None, 'number': 0}",
            "progress: {'progress': 1.0, 'note': 'page 2', 'error': None, 'number': 0}",
            "reply: {'pages': 2}",
        ]
        assert "stacks: a reader wishes Emma" in capsys.readouterr().out
        assert await printed(worker) == "binder: Emma is scanned"

        job = await stacks.submit(BindBook(title="Emma"))
        seen = [(update.progress, update.note, update.error) async for update in job.updates()]
        assert (await job.result(timeout=PATIENCE)).cover == "linen"
        assert seen == [
            (0.5, "the glue dries", None),
            (0.0, "attempt 1 failed: the glue is cold; next in 1s", "unavailable"),
            (0.5, "the glue dries", None),
        ]
        assert [await printed(worker) for _ in range(2)] == [
            "binder: Emma, attempt 1",
            "binder: Emma, attempt 2",
        ]

        refused = await stacks.submit(BindBook(title="Sand"))
        with pytest.raises(BusError, match="a book of sand cannot be bound") as raised:
            await refused.result(timeout=PATIENCE)
        assert raised.value.code == "invalid_argument"
        (letter,) = await stacks.dead_letters("binder.jobs.bind.v1")
        assert letter.id == refused.id
        assert letter.headers["dead-reason"] == "a book of sand cannot be bound"


def pretended(me: Identity, service: str) -> tuple[BasicProperties, bytes]:
    """Return an answer to `reader` that claims to come from a service, signed by another."""
    body = b'{"pages": 2}'
    answer = message(me, "stacks.scan.v1.reply", correlation_id="job", app_id=service)
    answer.headers["proof"] = me.proof(answer, body, aud="reader")
    return answer, body


@pytest.mark.usefixtures("keys")
def test_a_client_with_pika_drops_what_does_not_prove_its_sender() -> None:
    reader, stacks, binder = Identity("reader"), Identity("stacks"), Identity("binder")
    answer, body = pretended(stacks, "stacks")
    reader.check_answer(answer, body, "stacks", "the job's proof")
    with pytest.raises(Refused, match="claim dig does not match"):
        reader.check_answer(answer, b'{"pages": 3}', "stacks", "the job's proof")
    with pytest.raises(Refused, match="claim iss does not match"):
        reader.check_answer(*pretended(binder, "stacks"), "stacks", "the job's proof")
    with pytest.raises(Refused, match="another service answers"):
        reader.check_answer(*pretended(binder, "binder"), "stacks", "the job's proof")


@pytest.mark.usefixtures("keys")
def test_a_payload_of_pika_cannot_be_decrypted_in_another_message() -> None:
    me = Identity("reader")
    sent, other = message(me, "stacks.scan.v1"), message(me, "stacks.scan.v1")
    sealed = me.encrypt(sent, b'{"title": "Emma"}')
    assert me.decrypt(sent, sealed) == b'{"title": "Emma"}'
    with pytest.raises(Refused, match="cannot be decrypted"):
        me.decrypt(other, sealed)
