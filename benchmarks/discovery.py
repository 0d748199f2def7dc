"""The time in which many live instances answer one PING, and the cost of their silence.

usage: python -m benchmarks.discovery [--instances 200] [--processes 4] [--rounds 20] [--silence 20]

A private RabbitMQ node, some processes with many buses each, and one asker. All messages are signed
with keys (`BUS_AUTH=on`). The time of a round begins before the signature of the question, and ends
when the last answer is verified. The silence is measured by the message counters of the broker.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bus import Bus, Settings
from bus.messaging.control import GetInfo, Ping
from bus.operations.brokers.installation import find_installation
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.management_api import Management
from bus.runtime.discovery.open_asker import open_asker
from bus.security.private_keys import generate
from bus.settings import load_settings

__all__ = ["main"]

SERVICES = 10
OPERATOR = "operator"
LIMIT_SECONDS = 1.0
"""The promised time in which 200 instances answer."""
START_SECONDS = 180.0
MAX_WINDOW_SECONDS = 10.0
STATISTICS_SECONDS = 6.0
"""Seconds until the broker has renewed its counters. RabbitMQ renews them every 5 s."""


def services() -> list[str]:
    """Return the names of the services."""
    return [f"service-{number}" for number in range(SERVICES)]


def write_keys(folder: Path) -> None:
    """Write a key for each service and for the operator, the public keys, and the grants."""
    public = []
    for name in (*services(), OPERATOR):
        key = {**generate(), "kid": f"{name}-1", "alg": "EdDSA"}
        path = folder / f"{name}.key"
        path.write_text(json.dumps({"keys": [key]}))
        path.chmod(0o600)
        role = {"role": "operator"} if name == OPERATOR else {}
        members = {each: value for each, value in key.items() if each != "d"}
        public.append({**members, "iss": name, **role})
    (folder / "jwks.json").write_text(json.dumps({"keys": public}))
    (folder / "grants.toml").write_text(f'[operators.{OPERATOR}]\nmay = ["control.read"]\n')


def settings_of(url: str, folder: Path) -> Settings:
    """Return the settings of every process."""
    return load_settings(
        url=SecretStr(url),
        auth="on",
        key=SecretStr(str(folder)),
        operator_key=SecretStr(str(folder / f"{OPERATOR}.key")),
        jwks=str(folder / "jwks.json"),
        grants=folder / "grants.toml",
        log_format="none",
        connect_timeout=60,
    )


async def hold(url: str, folder: Path, count: int) -> None:
    """Keep some buses open until standard input ends. The first line of the output tells it."""
    settings = settings_of(url, folder)
    names = services()
    async with AsyncExitStack() as stack:
        for number in range(count):
            bus = Bus(names[number % SERVICES], settings=settings)
            await stack.enter_async_context(bus)
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.read)


@asynccontextmanager
async def holders(url: str, folder: Path, instances: int, processes: int) -> AsyncIterator[None]:
    """Keep all buses open inside the block."""
    counts = [
        instances // processes + (number < instances % processes) for number in range(processes)
    ]
    started = []
    try:
        for count in counts:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.discovery", "--hold", str(count)),
                *("--url", url, "--folder", str(folder)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            started.append(process)
        for process in started:
            if process.stdout is None:
                raise RuntimeError("the output of a process is not readable")
            line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
            if line != b"open\n":
                raise RuntimeError("a process ended before its buses were open")
        yield
    finally:
        for process in started:
            if process.stdin is not None:
                process.stdin.close()
        for process in started:
            await process.wait()


async def ask(settings: Settings, instances: int, rounds: int) -> dict[str, Any]:
    """Return the times of the answers of all instances."""
    figures: dict[str, Any] = {}
    async with open_asker(settings) as asker:
        for title, question in (("ping", Ping()), ("info", GetInfo())):
            seconds, counts = [], []
            for _ in range(rounds):
                began = time.perf_counter()
                answers = await asker.ask(question, window=MAX_WINDOW_SECONDS, expected=instances)
                seconds.append(time.perf_counter() - began)
                counts.append(len(answers))
                await asyncio.sleep(0.2)
            figures[title] = {
                "fewest_answers": min(counts),
                "median": statistics.median(seconds),
                "slowest": max(seconds),
            }
    return figures


async def count_messages(node: PrivateNode) -> dict[str, int]:
    """Return the counters of published and delivered messages of the whole broker."""
    found = await Management(node.management_url, node.url).call("GET", "overview")
    counters = (found or {}).get("message_stats", {})
    return {
        name: int(counters.get(name, 0)) for name in ("publish", "deliver_no_ack", "deliver_get")
    }


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run the benchmark, and return its figures."""
    installation = find_installation(os.environ)
    if installation is None:
        raise RuntimeError("RabbitMQ is not installed on this machine")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_keys(folder)
        node = PrivateNode(installation)
        await node.start()
        try:
            async with holders(node.url, folder, options.instances, options.processes):
                figures = await ask(
                    settings_of(node.url, folder), options.instances, options.rounds
                )
                await asyncio.sleep(STATISTICS_SECONDS)
                before = await count_messages(node)
                await asyncio.sleep(max(options.silence, STATISTICS_SECONDS))
                after = await count_messages(node)
                figures["silence"] = {
                    "seconds": max(options.silence, STATISTICS_SECONDS),
                    "messages": {each: after[each] - before[each] for each in after},
                    "before": before,
                }
        finally:
            await node.stop()
    return figures


def main(arguments: list[str]) -> int:
    """Print the figures as JSON. Return 1 if an answer is missing or too slow."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.discovery", description=__doc__)
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--silence", type=float, default=20)
    for hidden in ("--hold", "--url", "--folder"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.hold is not None:
        asyncio.run(hold(options.url, Path(options.folder), int(options.hold)))
        return 0
    figures = asyncio.run(measure(options))
    print(json.dumps({"instances": options.instances, **figures}, indent=2))
    ping = figures["ping"]
    is_kept = ping["fewest_answers"] == options.instances and ping["median"] <= LIMIT_SECONDS
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
