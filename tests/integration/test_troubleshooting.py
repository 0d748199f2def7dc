"""Each entry of docs/how-to/troubleshoot.md, tried on a broken system on a real RabbitMQ."""

import asyncio
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import AttemptEnd, JobKey, NewJob
from bus.operations.brokers.broker import Broker
from bus.operations.brokers.ports import free_ports
from bus.operations.management_api import Management
from bus.security.key_directory import KeyDirectory
from bus.storage.sqlalchemy.sqlite_file import create_sqlite_file
from bus.transports.rabbitmq.consumer_timeout import supports_consumer_timeout
from tests.broker import management_url
from tests.examples.page import ROOT
from tests.examples.symptoms import Shell, entries, index_rows, needs_time
from tests.integration.store.conftest import address_of
from tests.integration.store.test_open import create, opened
from tests.integration.troubled_system import troubled_system
from tests.polling import DEADLINE, POLL

CONTRACTS = "tests.integration.troubled_services"
PARTS = ("**It means:**", "**Do:**", "*Tried:*")
ENTRIES = entries()
ROUTERS = ("orders", "press")

BY_HAND = {"nothing-can-be-published-but-jobs-are-still-handled"}
WITH_SETTINGS = {
    "a-worker-restarts-in-a-loop",
    "a-worker-ends-with-precondition_failed",
    "a-worker-with-long-jobs-does-not-start",
    "the-broker-refuses-the-login",
    "the-broker-refuses-the-virtual-host",
    "a-tls-connection-fails",
}
WITH_KEYS = {
    "a-call-fails-with-permissiondenied",
    "all-calls-fail-with-unauthenticated-after-a-change-of-keys",
    "an-operator-may-not-see-the-services",
}
WITH_STORE = {
    "a-job-in-a-store-stays-queued": "6f1c2d3e",
    "a-job-in-a-store-runs-for-ever": "7a2d3e4f",
    "the-log-reports-a-stale-write-of-a-job": "8b3e4f5a",
    "a-worker-refuses-its-store-because-the-store-is-behind": "",
}
"""The entries about a store, with the id of their job."""
OLD_QUEUE = {
    "durable": True,
    "arguments": {
        "x-queue-type": "quorum",
        "x-delivery-limit": 20,
        "x-overflow": "reject-publish",
        "x-dead-letter-strategy": "at-least-once",
        "x-dead-letter-exchange": "bus.dead",
        "x-dead-letter-routing-key": "press.jobs.print.v1",
    },
}
GRANTS = """
clients = ["shop"]

[services.shop]
call = ["stock.find"]

[services.billing]

[operators.ida]
may = []
"""
PRESS_JOBS = "press.jobs.print.v1"
DEAD_ON_PAGE = "a2df0941-945f-46b9-ac5d-99689a970010"
READERS = ("bus dead", "bus trace")
AT_ONCE = 5
"""Commands that run at the same time. More of them would delay each other's answers."""


def variables(url: str, broker: Broker, folder: Path) -> dict[str, str]:
    """Create the program `bus` and modules of routers in a folder, and return the variables."""
    program = folder / "bin/bus"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bus.cli "$@"\n')
    program.chmod(0o755)
    for name in ROUTERS:
        text = f"from {CONTRACTS} import {name} as router  # noqa: F401\n"
        (folder / f"{name}.py").write_text(text)
    return {
        **os.environ,
        "BUS_URL": url,
        "BUS_MANAGEMENT_URL": management_url(broker),
        "BUS_CONTRACTS": CONTRACTS,
        "COLUMNS": "100",
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def shell(vhost_url: str, shared_broker: Broker, tmp_path: Path) -> Shell:
    parts = urlsplit(vhost_url)
    return Shell(
        folder=tmp_path,
        variables=variables(vhost_url, shared_broker, tmp_path),
        stand_ins={"broker.example:5672": f"{parts.hostname}:{parts.port}"},
        ids={},
    )


async def show(shell: Shell, changes: Mapping[str, Mapping[str, str]]) -> None:
    """Run the commands of entries with changed variables, and compare their output.

    A command that several entries show runs only once. Commands that show a problem only after
    some seconds run last.
    """
    turns, dead_letters = asyncio.Semaphore(AT_ONCE), asyncio.Lock()
    groups: dict[tuple[str, str], list[str]] = {}
    for anchor, changed in changes.items():
        groups.setdefault((ENTRIES[anchor].command, str(changed)), []).append(anchor)

    async def show_group(anchors: Sequence[str]) -> None:
        entries = [ENTRIES[each] for each in anchors]
        # A command that reads a dead-letter queue hides its messages from another one for a moment.
        alone = dead_letters if entries[0].command.startswith(READERS) else nullcontext()
        async with alone, turns:
            await shell.show(entries, changes[anchors[0]])

    last = sorted(groups, key=lambda group: needs_time(group[0]))
    tries = (show_group(groups[group]) for group in last)
    errors = [error for error in await asyncio.gather(*tries, return_exceptions=True) if error]
    assert not errors, "\n\n".join(str(error) for error in errors)


async def test_the_commands_show_what_is_broken_in_a_running_system(
    shell: Shell,
    vhost_url: str,
    shared_broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "bus.integrations.prometheus", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    [port] = free_ports(1)
    running = ENTRIES.keys() - BY_HAND - WITH_SETTINGS - WITH_KEYS - WITH_STORE.keys()
    async with troubled_system(vhost_url, management_url(shared_broker), port) as system:
        on_system = Shell(
            folder=shell.folder,
            variables={**shell.variables, "BUS_HEALTH_PORT": str(port)},
            stand_ins={"127.0.0.1:8080": f"127.0.0.1:{port}"},
            ids={DEAD_ON_PAGE: system.dead_id, DEAD_ON_PAGE[:8]: system.dead_id[:8]},
        )
        await show(on_system, {anchor: {} for anchor in sorted(running)})


async def test_the_commands_show_wrong_settings_of_a_worker_that_does_not_start(
    shell: Shell, vhost_url: str, shared_broker: Broker
) -> None:
    parts = urlsplit(vhost_url)
    user, host = parts.username, f"{parts.hostname}:{parts.port}"
    api = Management(management_url(shared_broker), vhost_url)
    await api.call("PUT", f"queues/{parts.path[1:]}/press.jobs.print.v1", OLD_QUEUE)
    changes = {
        "a-worker-restarts-in-a-loop": {"BUS_AUTH": "on"},
        "the-broker-refuses-the-login": {"BUS_URL": f"amqp://{user}:wrong@{host}/"},
        "the-broker-refuses-the-virtual-host": {
            "BUS_URL": f"amqp://{user}:{parts.password}@{host}/nosuch"
        },
        "a-tls-connection-fails": {"BUS_URL": vhost_url.replace("amqp:", "amqps:")},
    }
    shown = set(WITH_SETTINGS)
    if supports_consumer_timeout({"product": "RabbitMQ", "version": await api.version()}, "quorum"):
        shown.remove("a-worker-with-long-jobs-does-not-start")  # it starts on this broker
    await show(shell, {anchor: changes.get(anchor, {}) for anchor in sorted(shown)})


async def test_the_commands_show_missing_rights_and_keys(shell: Shell) -> None:
    keys, other = (KeyDirectory(shell.folder / name) for name in ("keys", "other"))
    for directory, service in ((keys, "shop"), (keys, "billing"), (other, "shop")):
        directory.new(service, f"{service}-1")
    keys.new("ida", "ida-1", role="operator")
    (shell.folder / "grants.toml").write_text(GRANTS)
    signed = {
        "BUS_AUTH": "on",
        "BUS_KEY": str(other.key_file("shop")),
        "BUS_JWKS": str(keys.set_file),
        "BUS_GRANTS": "grants.toml",
    }
    operator = {**signed, "BUS_OPERATOR_KEY": str(keys.key_file("ida"))}
    await show(
        shell, {anchor: operator if "operator" in anchor else signed for anchor in WITH_KEYS}
    )


async def test_the_commands_show_jobs_that_do_not_end_and_a_store_that_is_behind(
    shell: Shell,
) -> None:
    url = f"sqlite:///{shell.folder}/jobs.db"
    behind = f"sqlite:///{shell.folder}/behind.db"
    for each in (url, behind):
        create_sqlite_file(address_of(each))
    await create(url, "press")
    async with opened(url, "press") as store:
        queued, running, stale = (id_ for id_ in WITH_STORE.values() if id_)
        await store.jobs.record([print_job(running)])
        await store.jobs.claim(PRESS_JOBS, worker="press-1", limit=1, lease=60)
        await store.jobs.record([print_job(stale)])
        (claimed,) = await store.jobs.claim(PRESS_JOBS, worker="press-0", limit=1, lease=1)
        lost = AttemptEnd(attempt=claimed.attempt_of, state="succeeded")

        deadline = time.monotonic() + DEADLINE
        while not await store.jobs.claim(PRESS_JOBS, worker="press-2", limit=1, lease=60):
            assert time.monotonic() < deadline, "the lease of the first worker has not ended"
            await asyncio.sleep(POLL)
        assert await store.jobs.end([lost]) == [None]
        await store.jobs.record([print_job(queued)])
        stores = {anchor: url if id_ else behind for anchor, id_ in WITH_STORE.items()}
        await show(shell, {anchor: {"BUS_STORE": each} for anchor, each in stores.items()})


def print_job(id_: str) -> NewJob:
    envelope = Envelope(
        id=id_, type="press.print.v1", role="job", source="shop", body=b"{}", timestamp=1
    )
    return NewJob(key=JobKey("shop", id_), queue=PRESS_JOBS, envelope=envelope)


def test_each_entry_of_the_page_has_all_parts_and_is_tried_by_a_test_or_by_hand() -> None:
    assert len(ENTRIES) >= 20
    assert ENTRIES.keys() >= BY_HAND | WITH_SETTINGS | WITH_KEYS | WITH_STORE.keys()
    for entry in ENTRIES.values():
        places = [entry.text.find(part) for part in PARTS]
        assert -1 not in places, entry.symptom
        assert places == sorted(places), entry.symptom
        assert ("*Tried:* by hand" in entry.text) == (entry.anchor in BY_HAND), entry.symptom


def test_the_index_of_the_page_has_each_entry_with_its_command() -> None:
    rows = list(index_rows())
    assert [anchor for _, anchor, _ in rows] == list(ENTRIES)
    for symptom, anchor, command in rows:
        entry = ENTRIES[anchor]
        assert symptom == entry.symptom
        fixed = re.split(r" [A-Z]", command)[0]
        assert entry.command.startswith(fixed), symptom
