"""`bus queues --watch` in a pipe."""

import asyncio
import io
import json
import os
import re
import signal
import sys
import time

import pytest
from rich.console import Console

from bus.cli.queue_watch import stop_when_closed, update_json, update_piped
from bus.errors import Unavailable
from bus.operations.queue_inspection import QueueReport, QueueStatus
from bus.transports.rabbitmq.handshake import BrokerInfo
from tests.integration.command import ended, running

NO_BROKER = "amqp://127.0.0.1:1"
NAME = "library.jobs.scan.v1"
SERVER = BrokerInfo(product="RabbitMQ", version="4.0.5", cluster="rabbit@here", platform="Erlang")
SEEN = QueueReport(
    server=SERVER,
    queues=(QueueStatus(name=NAME, service="library", role="jobs", ready=12, consumers=0),),
    at=time.time(),
)
DOWN = Unavailable("the broker at localhost:1\ncannot be reached")


def test_each_refresh_is_a_block_of_lines_without_control_characters() -> None:
    written = io.StringIO()
    console = Console(file=written, width=200)
    for seen in (SEEN, DOWN, SEEN):
        update_piped(console, seen)
    lines = written.getvalue().splitlines()
    middle = len(lines) // 2
    block = lines[:middle]
    assert lines[middle + 1 :] == block
    assert (block[0][:14], block[-1]) == ("RabbitMQ 4.0.5", "")
    assert f"{NAME}: 12 ready and no consumer; start library with `bus run`" in block
    error = r"at [\d:]{8}: error: the broker at localhost:1 cannot be reached"
    assert re.fullmatch(error, lines[middle])
    assert not re.search(r"[^\n -~]", written.getvalue())


def test_each_refresh_is_one_object_a_line_for_programs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    update_json(SEEN)
    update_json(DOWN)
    report, error = map(json.loads, capsys.readouterr().out.splitlines())
    assert (report["queues"][0]["name"], report["queues"][0]["sampled"]) == (NAME, False)
    assert error == {"error": str(DOWN)}


async def test_the_end_of_the_reader_is_noticed_between_two_refreshes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reading, writing = os.pipe()
    stop = asyncio.Event()
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with stop_when_closed(stop) as is_closed:
            assert not is_closed()
            os.close(reading)
            await asyncio.wait_for(stop.wait(), 20)
            assert is_closed()


async def test_the_command_ends_when_its_pipe_is_closed() -> None:
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bus.cli", "queues", "--watch", "600"),
        env={**os.environ, "BUS_URL": NO_BROKER},
        stdout=writing,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(writing)
    assert b": error: " in await asyncio.to_thread(os.read, reading, 1000)
    os.close(reading)
    answer = await ended(process, 20)
    assert (answer.code, answer.err) == (1, "")


async def test_the_command_refreshes_and_ends_at_ctrl_c() -> None:
    async with running("queues", "--watch", "0.5", "--json", BUS_URL=NO_BROKER) as process:
        assert process.stdout
        for _ in range(2):
            assert "error" in json.loads(await process.stdout.readline())
        process.send_signal(signal.SIGINT)
        answer = await ended(process, 20)
    assert (answer.code, answer.err) == (0, "")
