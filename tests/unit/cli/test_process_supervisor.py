"""Changes of the code, and the processes that wait for them."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from bus.cli import process_supervisor
from bus.cli.code_changes import CodeChanges
from bus.cli.process_supervisor import Child, Command, forward_signals, run_processes
from bus.operations.health import READY, read_probe
from tests.polling import BRIEF, POLL, until


async def test_a_change_while_a_process_starts_is_not_missed() -> None:
    changes = CodeChanges()
    changes.add()
    await asyncio.wait_for(changes.wait_after(0), 1)
    waiting = [asyncio.ensure_future(changes.wait_after(1)) for _ in range(2)]
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    changes.add()
    await asyncio.wait_for(asyncio.gather(*waiting), 1)


def child(tmp_path: Path, code: str, changes: CodeChanges | None) -> tuple[Child, asyncio.Event]:
    program, stop = tmp_path / "program.py", asyncio.Event()
    program.write_text(code)
    return Child([sys.executable, "-S", "-E", str(program)], stop, changes, 1), stop


async def test_a_process_that_cannot_start_for_want_of_a_broker_is_tried_again_without_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process_supervisor, "backoff", lambda _: 0.0)
    failing, _ = child(tmp_path, f"raise SystemExit({os.EX_UNAVAILABLE})", CodeChanges())
    assert await failing.run() == os.EX_UNAVAILABLE
    assert "has failed to start 3 times in a row; stopping all processes" in capfd.readouterr().err


async def test_a_process_that_waits_for_a_change_stops_at_a_signal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failing, stop = child(tmp_path, "raise SystemExit(78)", CodeChanges())
    running, said = asyncio.ensure_future(failing.run()), []

    def is_waiting() -> bool:
        said.append(capfd.readouterr().err)
        return "waiting for a change of the code" in "".join(said)

    await until(is_waiting, "the process to wait")
    failing.signal(signal.SIGTERM)  # the process has ended already
    stop.set()
    assert await asyncio.wait_for(running, 5) == 78


async def test_the_first_signal_after_too_many_failed_starts_is_not_forwarded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forwarded: list[int] = []
    stop, one = asyncio.Event(), Child([], asyncio.Event(), None, 1)
    monkeypatch.setattr(one, "signal", forwarded.append)
    stop.set()  # as after too many failed starts of another process
    with forward_signals(stop, [one]) as received:
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: len(received) == 1, "the first signal", poll=BRIEF)
        assert forwarded == []
        signal.raise_signal(signal.SIGTERM)
        await until(lambda: len(received) == 2, "the second signal", poll=BRIEF)
        assert forwarded == [signal.SIGTERM]


async def test_a_start_that_ends_without_an_error_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(process_supervisor, "backoff", lambda _: 0.0)
    failing, stop = child(tmp_path, "import os; os._exit(0)", None)
    assert await asyncio.wait_for(failing.run(), 20) == os.EX_SOFTWARE
    assert stop.is_set()
    assert capfd.readouterr().err.splitlines() == [
        "bus run: process 1 ended with exit code 0; restarting",
        "bus run: process 1 ended with exit code 0; restarting",
        "bus run: process 1 has failed to start 3 times in a row; stopping all processes",
    ]


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("import os; os._exit(3)", "exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", "exit code 139, after the signal SIGSEGV"),
    ],
)
async def test_a_failed_start_shows_its_exit_code_or_signal(
    code: str, shown: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failing, stop = child(tmp_path, code, CodeChanges())
    running, said = asyncio.ensure_future(failing.run()), []

    def is_waiting() -> bool:
        said.append(capfd.readouterr().err)
        return "waiting for a change of the code" in "".join(said)

    await until(is_waiting, "the process to wait")
    stop.set()
    await asyncio.wait_for(running, 5)
    assert f"has failed to start ({shown}); waiting for a change of the code" in "".join(said)


CHILD_WITH_A_NOTE = """
import socket, sys
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[sys.argv.index("--health-socket") + 1])
    listener.listen()
    while True:
        client, _ = listener.accept()
        client.recv(4096)
        client.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-length: 15\\r\\n\\r\\nready (paused)\\n")
        client.close()
"""
READY_WITH_NOTE = (True, "ready (paused)")


async def test_the_parent_answers_with_the_notes_of_its_processes(tmp_path: Path) -> None:
    program, at = tmp_path / "program.py", tmp_path / "parent"
    program.write_text(CHILD_WITH_A_NOTE)
    arguments = [sys.executable, "-S", "-E", str(program)]
    parent = asyncio.ensure_future(
        run_processes(Command(arguments=arguments, processes=1, health=at))
    )

    try:
        async with asyncio.timeout(20):
            while not at.exists() or await read_probe(at, READY, timeout=5) != READY_WITH_NOTE:  # noqa: ASYNC110 - another process changes it
                await asyncio.sleep(POLL)
    finally:
        if not parent.done():
            signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(parent, 10)
