"""Changes of the code, and the processes that wait for them."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from bus.cli import process_supervisor
from bus.cli.code_changes import CodeChanges
from bus.cli.process_supervisor import Child
from tests.polling import until


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
