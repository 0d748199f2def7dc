"""Tests of the recogniser's process and of its pool.

No job is lost with a process, and no process is left behind.
"""

import asyncio
import os
import signal
from functools import partial
from pathlib import Path

import pytest

from bus.errors import ConfigurationError, InvalidArgument, Unavailable
from tests.speech import needs_speech
from tests.unit.workers.transcription.recordings import DICTATION
from tests.workers.transcription.conftest import SPEC, STARTED_WITHIN
from workers.processes.pool import Pool
from workers.transcription.engine import EngineSpec
from workers.transcription.process import RecogniserProcess
from workers.transcription.recogniser import Begun, Heard

pytestmark = needs_speech

start = partial(RecogniserProcess.start, SPEC, max_seconds=60, timeout=STARTED_WITHIN)


async def recognised(process: RecogniserProcess, path: Path) -> str:
    with path.open("rb") as file:
        messages = [message async for message in process.recognise(file.fileno())]
    assert isinstance(messages[0], Begun)
    return " ".join(
        message.words.text for message in messages if isinstance(message, Heard) and message.words
    )


def gone(pid: int | None) -> bool:
    assert pid is not None
    return not Path(f"/proc/{pid}").exists()


async def test_a_process_recognises_one_recording_after_another_good_or_bad(
    sentence: Path, broken: Path
) -> None:
    process = await start()
    assert process.pid != os.getpid()
    first = await recognised(process, sentence)
    with pytest.raises(InvalidArgument, match="not a WAV"):
        await recognised(process, broken)
    assert process.usable
    assert await recognised(process, sentence) == first != ""
    await process.end()
    assert gone(process.pid)


async def test_an_engine_that_cannot_be_loaded_says_so_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"the pocketsphinx model in .* cannot be loaded"):
        await RecogniserProcess.start(
            EngineSpec(engine="pocketsphinx", model_dir=tmp_path),
            max_seconds=60,
            timeout=STARTED_WITHIN,
        )


async def test_an_engine_that_loads_too_long_is_given_up() -> None:
    with pytest.raises(Unavailable, match="did not load"):
        await RecogniserProcess.start(SPEC, max_seconds=60, timeout=0.01)


async def killed_half_way(process: RecogniserProcess) -> None:
    with DICTATION.open("rb") as file:
        async for message in process.recognise(file.fileno()):
            if isinstance(message, Begun):
                os.kill(process.pid or 0, signal.SIGKILL)


async def test_a_job_whose_process_is_killed_may_be_tried_again_and_finds_a_new_one() -> None:
    async with Pool.opened(start, size=1) as pool:
        async with pool.lease() as process:
            first = process.pid
            with pytest.raises(Unavailable, match="ended unexpectedly"):
                await killed_half_way(process)
        assert gone(first)
        async with pool.lease() as process:
            assert process.usable
            assert process.pid != first


async def test_a_process_that_died_while_idle_is_replaced() -> None:
    async with Pool.opened(start, size=1) as pool:
        async with pool.lease() as process:
            first = process.pid
        await process.end()
        async with pool.lease() as process:
            assert process.usable
            assert process.pid != first


async def test_a_cancelled_job_ends_its_process_and_gives_its_place_back() -> None:
    begun = asyncio.Event()
    pids = []

    async def job(pool: Pool[RecogniserProcess]) -> None:
        async with pool.lease() as process:
            pids.append(process.pid)
            with DICTATION.open("rb") as file:
                async for _ in process.recognise(file.fileno()):
                    begun.set()

    async with Pool.opened(start, size=1) as pool:
        running = asyncio.create_task(job(pool))
        await begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert gone(pids[0])
        async with pool.lease() as process:
            assert process.usable


async def test_a_pool_that_cannot_fill_leaves_nothing_behind() -> None:
    started: list[RecogniserProcess] = []

    turn = asyncio.Lock()

    async def one_then_none() -> RecogniserProcess:
        async with turn:
            if started:
                raise Unavailable("no more")
            started.append(await start())
            return started[0]

    with pytest.raises(Unavailable, match="no more"):
        async with Pool.opened(one_then_none, size=2):
            pass
    assert gone(started[0].pid)


async def test_a_service_that_dies_takes_its_recogniser_along() -> None:
    process = await start()
    # The system also closes the service's end of the pipe when the service is killed.
    process._process.connection.close()
    await asyncio.to_thread(process._process._process.join, STARTED_WITHIN)
    assert process._process._process.exitcode == 0
