"""Tests of `bus run --reload`: a mistake in the code waits until it is mended."""

import asyncio
import signal
from pathlib import Path

from pydantic import SecretStr

from bus import Bus, Message, NotServed, Request, Settings, contract
from tests.integration.command import ROOT, ended, running_in

GREETER = """
from bus import Message, Request, Router, contract

class Greeting(Message):
    text: str

@contract("greeter.greet", version=1, idempotent=True)
class Greet(Request[Greeting]):
    pass

router = Router("greeter")

@router.request(Greet)
async def greet(request: Greet) -> Greeting:
    return Greeting(text="mended")
"""
BROKEN = "router = (1"


class Greeting(Message):
    text: str


@contract("greeter.greet", version=1, idempotent=True)
class Greet(Request[Greeting]):
    pass


async def test_a_syntax_error_waits_until_it_is_mended(vhost_url: str, tmp_path: Path) -> None:
    service = tmp_path / "greeter.py"
    service.write_text(BROKEN)
    known = {"BUS_URL": vhost_url, "BUS_AUTH": "off", "PYTHONPATH": str(ROOT)}
    async with (
        running_in(tmp_path, "bus.cli", "run", "greeter:router", "--reload", **known) as parent,
        Bus("caller", settings=Settings(url=SecretStr(vhost_url), auth="off")) as caller,
    ):
        assert parent.stderr is not None
        await _said(parent.stderr, "SyntaxError: '(' was never closed at greeter.py:1. ")
        await _said(
            parent.stderr, "has failed to start (exit code 78); waiting for a change of the code"
        )
        service.write_text(GREETER)
        assert (await _greeting(caller)).text == "mended"
        service.write_text(BROKEN)
        await _said(parent.stderr, "waiting for a change of the code")
        parent.send_signal(signal.SIGTERM)
        assert (await ended(parent)).code == 78


async def _said(stream: asyncio.StreamReader, what: str) -> None:
    async with asyncio.timeout(60):
        while what not in (line := (await stream.readline()).decode()):
            assert line, f"it ended, and did not say {what}"


async def _greeting(caller: Bus) -> Greeting:
    async with asyncio.timeout(60):
        while True:
            try:
                return await caller.request(Greet(), timeout=5)
            except NotServed:
                await asyncio.sleep(0.02)
