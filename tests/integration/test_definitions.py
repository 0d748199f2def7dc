"""Tests that `definitions.json` is current and equals what the workers declare."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

import pytest
from pydantic import SecretStr

from bus import Bus, Settings
from bus.operations.brokers.broker import Broker
from bus.operations.management_api import Management
from tests.broker import management_url
from tests.integration.command import ROOT
from workers.transcription import router

FILE = ROOT / "definitions.json"


def definitions(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "scripts/definitions.py"), *arguments]
    known = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        command, env=known, capture_output=True, text=True, timeout=60, check=False
    )


def test_the_definitions_are_those_of_the_workers_now() -> None:
    done = definitions()

    assert done.returncode == 0, done.stderr
    assert done.stdout == FILE.read_text(encoding="utf-8"), (
        "write it anew: python scripts/definitions.py > definitions.json"
    )


async def test_a_worker_finds_loaded_definitions_as_it_would_have_made_them(
    shared_broker: Broker, vhost_url: str
) -> None:
    done = definitions(
        "--load", str(FILE), BUS_URL=vhost_url, BUS_MANAGEMENT_URL=management_url(shared_broker)
    )
    assert done.returncode == 0, done.stderr
    loaded = await queues(shared_broker, vhost_url)

    async with Bus("transcription", settings=Settings(url=SecretStr(vhost_url))) as bus:
        for _, topology in router.topology().values():
            # This raises TopologyMismatch if a queue or exchange has other arguments.
            await bus._transport.declare(topology)
    assert loaded == await queues(shared_broker, vhost_url)
    assert loaded == {
        each["name"] for each in json.loads(FILE.read_text(encoding="utf-8"))["queues"]
    }


@pytest.mark.parametrize(
    ("content", "code", "about"),
    [
        (None, 66, "cannot be read"),
        ("{", 65, "is not JSON"),
        ("[]", 65, "must contain a JSON object with definitions"),
    ],
)
def test_a_file_without_definitions_is_told_in_a_line(
    tmp_path_factory: pytest.TempPathFactory, content: str | None, code: int, about: str
) -> None:
    path = tmp_path_factory.mktemp("definitions") / "definitions.json"
    if content is not None:
        path.write_text(content)
    done = definitions("--load", str(path))

    assert done.returncode == code
    assert len(done.stderr.splitlines()) == 1
    assert about in done.stderr


async def queues(broker: Broker, vhost_url: str) -> set[str]:
    """Return the names of the queues except reply queues, which end with their connections."""
    vhost = quote(unquote(urlsplit(vhost_url).path[1:]), safe="")
    listed: list[Mapping[str, object]] = await Management(management_url(broker), broker.url).call(
        "GET", f"queues/{vhost}"
    )
    return {str(each["name"]) for each in listed if ".replies." not in str(each["name"])}
