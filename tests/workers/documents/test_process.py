"""Tests of the rendering processes.

A document that does not end stops only its own job, and no process is left behind.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bus.errors import Internal, OutOfRange, Unavailable
from tests.polling import until
from tests.unit.workers.documents.notes import note
from tests.workers.documents.stuck import DEAD, FAULTY, HUNGRY, LARGE, LIMITS, STUCK, Acting
from workers.documents.process import Renderer
from workers.documents.renderer import PART_BYTES

ROOT = Path(__file__).parents[3]


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    return tmp_path / "begun"


@pytest.fixture
async def renderer(begun: Path) -> AsyncIterator[Renderer]:
    async with Renderer.opened(Acting(begun), LIMITS, processes=2) as renderer:
        yield renderer


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


async def pid_in(file: Path) -> int:
    """Wait until a process has begun a note that never ends, and return its id."""

    def written() -> str:
        return file.read_text(encoding="ascii") if file.exists() else ""

    await until(lambda: written() != "", "a stuck process")
    return int(written())


async def text_of(renderer: Renderer, text: str) -> str:
    return (await renderer.render(note(text), "pdf")).data.decode()


async def test_a_document_does_not_wait_for_the_slow_one_of_another_caller(
    renderer: Renderer, begun: Path
) -> None:
    slow = asyncio.create_task(renderer.render(note(STUCK), "pdf"))
    pid = await pid_in(begun)
    assert [await text_of(renderer, text) for text in ("one", "two")] == ["one", "two"]
    assert not slow.done()
    slow.cancel()
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert gone(pid)


async def test_a_document_beyond_the_limit_of_time_ends_with_its_process_and_names_the_setting(
    begun: Path,
) -> None:
    limits = replace(LIMITS, max_seconds=0.3)
    async with Renderer.opened(Acting(begun), limits, processes=1) as renderer:
        with pytest.raises(OutOfRange, match=r"longer than 0\.3 s.*DOCUMENTS_MAX_SECONDS"):
            await renderer.render(note(STUCK), "pdf")
        assert gone(await pid_in(begun))
        assert await text_of(renderer, "next") == "next"


async def test_more_slow_documents_than_processes_delay_another_by_the_limit_at_most(
    begun: Path,
) -> None:
    limits = replace(LIMITS, max_seconds=0.3)
    async with Renderer.opened(Acting(begun), limits, processes=2) as renderer:
        slow = [asyncio.create_task(renderer.render(note(STUCK), "pdf")) for _ in range(2)]
        await pid_in(begun)
        assert await text_of(renderer, "next") == "next"
        ended = await asyncio.gather(*slow, return_exceptions=True)
        assert [type(error) for error in ended] == [OutOfRange, OutOfRange]


async def test_a_process_that_dies_fails_only_its_own_document_which_may_be_retried(
    renderer: Renderer,
) -> None:
    results = await asyncio.gather(
        *(renderer.render(note(text), "pdf") for text in (DEAD, "one", DEAD, "two")),
        return_exceptions=True,
    )
    assert [type(result) for result in results[::2]] == [Unavailable, Unavailable]
    assert "the renderer's process ended unexpectedly" in str(results[0])
    assert not any(isinstance(result, BaseException) for result in results[1::2])
    assert await text_of(renderer, "next") == "next"


@pytest.mark.parametrize(
    ("text", "setting"), [(HUNGRY, "DOCUMENTS_MAX_MEMORY"), (LARGE, "DOCUMENTS_MAX_BYTES")]
)
async def test_a_document_beyond_a_limit_of_size_is_refused_with_the_setting(
    renderer: Renderer, text: str, setting: str
) -> None:
    with pytest.raises(OutOfRange, match=setting):
        await renderer.render(note(text), "pdf")
    assert await text_of(renderer, "next") == "next"


async def test_a_fault_of_the_renderer_is_told_without_words_of_the_note(
    renderer: Renderer,
) -> None:
    with pytest.raises(Internal, match="ValueError") as raised:
        await renderer.render(note(FAULTY), "pdf")
    assert FAULTY not in str(raised.value)


async def test_a_file_of_many_parts_comes_whole(renderer: Renderer) -> None:
    text = "äöü" * 16_000
    assert len(text.encode()) > PART_BYTES
    assert await text_of(renderer, text) == text


async def test_no_process_stays_after_the_renderer_is_closed(begun: Path) -> None:
    async with Renderer.opened(Acting(begun), LIMITS, processes=2) as renderer:
        pages = [(await renderer.render(note(), "pdf")).pages for _ in range(4)]
        assert len(set(pages)) == 2
    assert all(pid is not None and gone(pid) for pid in pages)


WORKER = """
import asyncio, sys
from pathlib import Path
from tests.unit.workers.documents.notes import note
from tests.workers.documents.stuck import LIMITS, STUCK, Acting
from workers.documents.process import Renderer

async def main():
    async with Renderer.opened(Acting(Path(sys.argv[1])), LIMITS, processes=1) as renderer:
        await renderer.render(note(STUCK), "pdf")

asyncio.run(main())
"""


async def test_a_worker_that_is_killed_leaves_no_process_even_during_a_document(
    begun: Path,
) -> None:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(begun), cwd=ROOT
    )
    pid = await pid_in(begun)
    os.kill(worker.pid, signal.SIGKILL)
    await worker.wait()
    await until(lambda: gone(pid), "the end of the rendering process")


async def test_a_stop_signal_to_the_whole_group_lets_a_document_finish(
    renderer: Renderer, begun: Path
) -> None:
    slow = asyncio.create_task(renderer.render(note(STUCK), "pdf"))
    pid = await pid_in(begun)
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGINT)
    assert await text_of(renderer, "next") == "next"
    assert not slow.done()
    assert not gone(pid)
    slow.cancel()
