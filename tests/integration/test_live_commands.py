"""`bus services`, `bus wait` and `bus top` on a real RabbitMQ."""

import asyncio
import json
import os
import pty
import signal
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bus.operations.brokers.broker import Broker
from tests.broker import management_url
from tests.integration.command import ROOT, Ended, bus, ended, interruptible, running
from tests.integration.live_system import call, system
from tests.polling import until

ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
"""Control codes that show and leave the full screen of a terminal."""


@pytest.fixture
def environment(vhost_url: str, shared_broker: Broker) -> dict[str, str]:
    return {"BUS_URL": vhost_url, "BUS_MANAGEMENT_URL": management_url(shared_broker)}


def words(answer: Ended) -> list[list[str]]:
    assert answer.code == 0, answer.err
    return [line.split() for line in answer.out.splitlines()]


async def test_one_command_finds_the_slow_the_failing_and_the_old_service(
    environment: dict[str, str],
) -> None:
    async with system(environment["BUS_URL"]) as shop:
        await asyncio.gather(*(call(shop, number) for number in range(4)))
        listed, told, top = await asyncio.gather(
            bus("services", **environment),
            bus("services", "cashier", "--json", **environment),
            bus("top", "--once", "--sort", "p99", "--interval", "0.5", **environment),
        )
    lines = words(listed)
    problems = [" ".join(line) for line in lines if line[0].endswith(":")]
    assert (
        "cashier: cashier.quote.v1: 50% of the attempts in the last 1 to 2 minutes failed"
        in problems
    )
    assert "dispatch: instances run different versions: 1.4, 1.5" in problems
    rows = {line[0]: line for line in lines if not line[0].endswith(":")}
    p99 = rows["service"].index("p99")
    assert float(rows["depot"][p99].removesuffix("ms")) >= 200
    assert rows["dispatch"][1] == "2"
    assert {*rows} == {"service", "depot", "cashier", "dispatch", "shop"}
    (service,) = json.loads(told.out)["services"]
    assert (service["state"], service["versions"]) == ("ready", ["1.0"])
    operation = next(each for each in service["operations"] if each["kind"] == "request")
    assert operation["errors"] == {"internal": 2}
    assert operation["last_error"]["place"].startswith("tests/integration/live_system.py:")
    types = {contract["type"] for contract in service["instances"][0]["contracts"]}
    assert types == {"cashier.quote.v1", "dispatch.placed.v1"}
    assert "depot.requests.find.v1" in top.out
    assert ["operation", "rate/s"] in [line[:2] for line in words(top)]


async def test_the_watch_sees_a_stop_at_once(environment: dict[str, str]) -> None:
    arguments = ("services", "dispatch", "--watch", "--json", "--interval", "600")
    async with running(*arguments, **environment) as process:
        async with system(environment["BUS_URL"]):
            await next_state(process, {"ready": 2})
        # The next question is 10 minutes away, so only the announcements can show this.
        await next_state(process, {"draining": 2})
        process.send_signal(signal.SIGINT)
        answer = await ended(process, 20)
    assert (answer.code, answer.err) == (0, "")


async def next_state(process: asyncio.subprocess.Process, states: dict[str, int]) -> None:
    """Read lines until one has these states of instances."""
    assert process.stdout
    async with asyncio.timeout(40):
        while line := await process.stdout.readline():
            services: list[dict[str, Any]] = json.loads(line)["services"]
            if services and services[0]["states"] == states:
                return
    raise AssertionError(f"no line has {states}")


async def test_a_wait_that_begins_before_the_service_ends_when_it_is_ready(
    environment: dict[str, str],
) -> None:
    arguments = ("wait", "dispatch.place.v1", "--instances", "2")
    async with running(*arguments, **environment) as process:
        assert process.stderr
        assert b"no instance of dispatch answered" in await process.stderr.readline()
        async with system(environment["BUS_URL"]):
            answer = await ended(process, 40)
    assert (answer.code, answer.out) == (
        0,
        "dispatch.place.v1 is ready: 2 instances, version 1.4 and 1.5\n",
    )


class Screen:
    """The user's end of a terminal in which a command runs."""

    def __init__(self, user: int) -> None:
        self._user = user
        self.text = ""
        asyncio.get_running_loop().add_reader(user, self._read)

    def _read(self) -> None:
        try:
            self.text += os.read(self._user, 100_000).decode(errors="replace")
        except OSError:  # the command has ended
            asyncio.get_running_loop().remove_reader(self._user)

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._user, keys.encode())


@asynccontextmanager
async def on_terminal(
    *arguments: str, **environment: str
) -> AsyncIterator[tuple[asyncio.subprocess.Process, Screen]]:
    """Run a command in a terminal of 100 columns and 30 lines.

    At the end of the block, check that the terminal has its former attributes again.
    """
    user, command = pty.openpty()
    termios.tcsetwinsize(command, (30, 100))
    before = termios.tcgetattr(command)
    variables = {
        name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bus.cli", *arguments),
        cwd=ROOT,
        env={**variables, "TERM": "xterm", **environment},
        stdin=command,
        stdout=command,
        stderr=command,
        preexec_fn=interruptible,
    )
    screen = Screen(user)
    try:
        yield process, screen
        await asyncio.wait_for(process.wait(), 20)
        assert termios.tcgetattr(command) == before
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        asyncio.get_running_loop().remove_reader(user)
        os.close(user)
        os.close(command)


async def test_the_screen_of_top_restores_the_terminal(environment: dict[str, str]) -> None:
    ends: list[str | signal.Signals] = ["q", signal.SIGTERM]
    await asyncio.gather(*(leave_top(end, environment) for end in ends))


async def leave_top(end: str | signal.Signals, environment: dict[str, str]) -> None:
    """Run `bus top` in a terminal, and end it by a key or a signal."""
    async with on_terminal("top", "--interval", "0.5", **environment) as (process, screen):
        await until(lambda: "no instance answers" in screen.text, "the screen")
        assert ENTER in screen.text
        assert LEAVE not in screen.text
        if isinstance(end, str):
            screen.type(end)
        else:
            process.send_signal(end)
        await until(lambda: LEAVE in screen.text, "the end of the screen")
    assert process.returncode == 0
