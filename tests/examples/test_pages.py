"""Test of the tutorial and the how-to pages, by the steps of a reader."""

import re
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from bus.operations.brokers.broker import Broker
from bus.operations.brokers.ports import free_ports
from bus.operations.management_api import Management
from tests.broker import management_url
from tests.examples.page import ROOT, followed
from tests.speech import needs_speech

TUTORIAL = ROOT / "docs/tutorial/first-service.md"
QUEUE = re.compile(r"`((?:bakery|shop)\.(?:requests|jobs|events|retry|unroutable)\.[a-z0-9.]+)`")


async def test_the_tutorial_does_what_it_says_and_its_queues_are_there(
    shared_broker: Broker, vhost_url: str, tmp_path: Path
) -> None:
    async with followed(TUTORIAL, tmp_path, vhost_url):
        management = Management(management_url(shared_broker), shared_broker.url)
        vhost = quote(urlsplit(vhost_url).path.removeprefix("/"), safe="")
        there = {queue["name"] for queue in await management.call("GET", f"queues/{vhost}")}
    named = set(QUEUE.findall(TUTORIAL.read_text(encoding="utf-8")))
    assert named
    assert named <= there


HOW_TO = [
    "add-a-service",
    "adopt-from-faststream",
    "answer-while-a-service-is-slow",
    "change-a-queue",
    "configure-calls",
    "configure-logging",
    "deploy-your-own-service",
    "encrypt-payloads",
    "find-a-failure",
    "find-out-why",
    "generate-documents",
    "give-each-service-a-broker-user",
    "handle-dead-letters",
    "handle-failed-jobs",
    "inspect-queues",
    "keys",
    "make-an-effect-exactly-once",
    "metrics",
    "move-from-celery",
    "move-from-rest",
    "pause-for-a-dependency",
    "run-a-game-day",
    "run-a-store",
    "run-a-worker",
    "run-long-jobs",
    "run-where-others-manage-the-broker",
    "see-running-services",
    "survive-a-failing-service",
    "test-without-a-broker",
    "traces",
    "transcribe-recordings",
    "tune-resilience",
    "use-from-django",
    "use-from-flask",
    "write-handlers",
]
"""Pages with blocks that have a title. This test runs these blocks."""

SIGNED = {"BUS_AUTH": "on"}
VARIABLES: dict[str, dict[str, str]] = {
    "find-a-failure": {"COLUMNS": "80"},
    "handle-dead-letters": SIGNED | {"COLUMNS": "80"},
    "handle-failed-jobs": {"COLUMNS": "130"},
    "keys": SIGNED,
    "pause-for-a-dependency": {"COLUMNS": "130"},
    "run-a-worker": SIGNED,
    "see-running-services": {"COLUMNS": "130"},
}
"""Variables that a page needs beside BUS_URL and BUS_AUTH=off."""

MANAGED = {
    "change-a-queue",
    "find-a-failure",
    "find-out-why",
    "handle-dead-letters",
    "inspect-queues",
    "pause-for-a-dependency",
}
"""Pages with commands that need the management API, which has its usual port there."""


OLD_QUEUE = {
    "durable": True,
    "arguments": {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
        "x-dead-letter-exchange": "bus.dead",
        "x-dead-letter-routing-key": "library.jobs.scan.v1",
    },
}
"""Queue of an earlier version, which the page on changing a queue migrates."""


SPEECH = {"transcribe-recordings"}
CASES = [pytest.param(name, marks=needs_speech if name in SPEECH else ()) for name in HOW_TO]


@pytest.mark.parametrize("name", CASES)
async def test_a_how_to_does_what_it_says(
    name: str,
    shared_broker: Broker,
    vhost_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    managed, url = management_url(shared_broker), urlsplit(vhost_url)
    monkeypatch.setenv("BUS_TEST_URL", shared_broker.url)
    monkeypatch.setenv("BUS_TEST_MANAGEMENT_URL", managed)
    environment = VARIABLES.get(name, {}) | (
        {"BUS_MANAGEMENT_URL": managed} if name in MANAGED else {}
    )
    if name == "change-a-queue":
        queue = f"queues/{quote(url.path.removeprefix('/'), safe='')}/library.jobs.scan.v1"
        await Management(managed, shared_broker.url).call("PUT", queue, OLD_QUEUE)
    page = ROOT / f"docs/how-to/{name}.md"
    async with followed(
        page,
        tmp_path,
        vhost_url,
        environment=environment,
        stand_ins=stand_ins(vhost_url, managed, tmp_path),
    ):
        pass


def stand_ins(url: str, managed: str, folder: Path) -> dict[str, str]:
    """Return the texts of the pages that stand for a port or a broker, and what they stand for."""
    parts = urlsplit(url)
    port, exporter, web = free_ports(3)
    return {
        "127.0.0.1:8080": f"127.0.0.1:{port}",
        "BUS_HEALTH_PORT=8080": f"BUS_HEALTH_PORT={port}",
        "127.0.0.1:9464": f"127.0.0.1:{exporter}",
        "--port 9464": f"--port {exporter}",
        "127.0.0.1:9100": f"127.0.0.1:{web}",
        "start_http_server(9100": f"start_http_server({web}",
        "http://broker.example:15672": managed,
        "--user admin:password": f"--user {parts.username}:{parts.password}",
        "--vhost backbone": f"--vhost {parts.path.removeprefix('/')}",
        "/srv/documents": str(folder / "documents"),
        "amqps://": "amqp://",
        "@broker.example/backbone": f"@{parts.hostname}:{parts.port}{parts.path}",
    }
