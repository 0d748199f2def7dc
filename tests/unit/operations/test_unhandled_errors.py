"""Errors that no code handled: the log has their class and location, and the text with debug."""

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bus.operations.unhandled_errors import log_unhandled_errors

SECRET = "Eleonora Quist"

ROUTER = """
import asyncio, gc, threading, warnings
from contextlib import asynccontextmanager
from bus import Router

async def forgotten():
    raise ValueError("Eleonora Quist")

def failing(customer="Eleonora Quist"):
    raise KeyError(customer)

class Closing:
    def __del__(self):
        failing()

async def never_awaited():
    pass

@asynccontextmanager
async def lifespan():
    tasks = [asyncio.create_task(forgotten())]
    future = asyncio.get_running_loop().create_future()
    future.set_exception(LookupError("Eleonora Quist"))
    asyncio.get_running_loop().call_soon(failing, "Eleonora Quist")
    thread = threading.Thread(target=failing)
    thread.start()
    thread.join()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del future
    tasks.clear()
    Closing()
    never_awaited()
    warnings.warn("first line\\nEleonora Quist")
    gc.collect()
    raise SystemError("Eleonora Quist")
    yield

router = Router("till", lifespan=lifespan)
"""
SCRIPT = """
import asyncio, sys
from bus.cli import run
from bus.cli.loading import load_router
from bus.cli.worker_loop import run_worker
from bus.settings import load_settings

async def main():
    router = load_router("till:router")
    services = run.serve_until
    async def enter(_services, _stop, _health, _started):
        async with router.opened(None):
            pass
    run.serve_until = enter
    return await run.serve([router], settings, None, lambda: None, stop)

settings, stop = load_settings(), asyncio.Event()
try:
    run_worker(main(), stop, debug=settings.debug)
except SystemError:
    pass
"""


def run(folder: Path, **environment: str) -> list[str]:
    """Run `bus run` in a process of its own with a lifespan that fails in all these ways."""
    (folder / "till.py").write_text(ROUTER)
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=folder,
        env={**os.environ, "BUS_AUTH": "off", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return ended.stderr.splitlines()


def test_unhandled_errors_have_a_class_and_a_location_and_no_text(tmp_path: Path) -> None:
    output = run(tmp_path)
    lines = [json.loads(line) for line in output]  # each line is JSON
    assert SECRET not in str(output)
    unhandled = {line["event"]: line for line in lines if line["logger"] == "bus.unhandled"}
    assert {text.partition(" (")[0]: line["error"] for text, line in unhandled.items()} == {
        "a task failed, and no code awaited it [forgotten]": "ValueError",
        "a future failed, and no code awaited it": "LookupError",
        "a callback of the event loop failed": "KeyError",
        "a thread ended with an error": "KeyError",
        "Python ignored an error, for example of a destructor": "KeyError",
    }
    places = [line["where"] for line in unhandled.values() if line["error"] != "LookupError"]
    assert {place.rpartition(" ")[2] for place in places} == {"forgotten", "failing"}
    warned = [line["event"] for line in lines if line["logger"] == "py.warnings"]
    assert any("coroutine 'never_awaited' was never awaited" in text for text in warned)
    assert any(text.endswith("UserWarning: first line") for text in warned)


def test_with_debug_unhandled_errors_have_their_text(tmp_path: Path) -> None:
    output = run(tmp_path, BUS_DEBUG="1")
    lines = [json.loads(line) for line in output]
    shown = [line for line in lines if line["logger"] == "bus.unhandled"]
    assert len(shown) == 5
    assert all(SECRET in line["exception"] for line in shown)
    assert any(SECRET in line["event"] for line in lines if line["logger"] == "py.warnings")


async def test_a_hook_of_the_application_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(*_: object) -> None: ...

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(own)
    monkeypatch.setattr(threading, "excepthook", own)
    monkeypatch.setattr(sys, "unraisablehook", own)
    log_unhandled_errors(loop, debug=False)
    assert (loop.get_exception_handler(), threading.excepthook, sys.unraisablehook) == (own,) * 3


async def test_a_report_of_the_loop_without_an_exception_shows_no_values(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(None)
    log_unhandled_errors(loop, debug=False)
    loop.call_exception_handler({"message": f"Task was destroyed but it is pending! <{SECRET}>"})
    (record,) = [each for each in caplog.records if each.name == "bus.unhandled"]
    assert record.levelno == logging.ERROR
    assert record.getMessage() == "the event loop reported: Task was destroyed but it is pending"
