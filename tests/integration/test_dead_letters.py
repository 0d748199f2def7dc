"""Tests of `bus dead` on a real RabbitMQ.

They include the cases that need a real broker: a replay that is killed, and the close of channels.
"""

import asyncio
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aiormq.abc import AbstractChannel
from pydantic import SecretStr

from bus import Bus, Job, Router, Settings, contract
from bus.cli.dead.export_file import ExportReader, write
from bus.cli.dead.imports import Import
from bus.cli.dead.queues import connected
from bus.contracts.contract import contract_of
from bus.messaging.envelope import Envelope
from bus.messaging.ports.transport import Accepted, Transport
from bus.messaging.topology.addresses import dead_letter_address
from bus.messaging.topology.declarations import job_topology
from bus.messaging.topology.names import dead_letter_queue, unroutable_queue
from bus.operations.brokers.broker import Broker
from bus.operations.dead_letters import browse
from bus.operations.dead_letters.browse import browse_queue
from bus.transports.rabbitmq import RabbitMQTransport
from bus.transports.rabbitmq.connection import SupervisedConnection
from tests.broker import management_url
from tests.integration.command import Ended, bus, ended, running

SECRET = "Eleonora Quist"
UUID_END = "69-65da-4741-9053-a6d7357cb8dc"


@contract("archive.file", version=1)
class FileAway(Job[None]):
    title: str


WORK = "archive.jobs.file.v1"
DEAD = dead_letter_queue(WORK)
TOPOLOGY = job_topology(contract_of(FileAway), tiers=["1s"])


@pytest.fixture
async def transport(vhost_url: str) -> AsyncIterator[Transport]:
    """Declare the queues, which are empty, and return a transport."""
    async with connected(Settings(url=SecretStr(vhost_url))) as transport:
        await transport.declare(TOPOLOGY)
        yield transport


async def bury(
    transport: Transport, *ids: str, code: str = "internal", at: int = 1_700_000_000_000
) -> None:
    """Create dead letters with these ids."""
    headers: dict[str, str | int] = {
        "dead-code": code,
        "dead-reason": "ValueError",
        "dead-attempts": 5,
        "dead-at": at,
    }
    body = json.dumps({"title": SECRET}).encode()
    letter = Envelope(
        id="",
        type="archive.file.v1",
        role="job",
        source="desk",
        body=body,
        attempt=5,
        headers=headers,
    )
    for id_ in ids:
        sent = letter.replace(id=id_, correlation_id=f"c-{id_}")
        assert await transport.send(sent, dead_letter_address(WORK), timeout=40) == Accepted()


async def ids_in(url: str, queue: str) -> list[str]:
    """Remove all ready messages from a queue, and return their ids."""
    found = []
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        place = await channel.get_queue(queue, ensure=False)
        while message := await place.get(no_ack=True, fail=False):
            found.append(message.message_id or "")
    return found


async def reached(transport: Transport, least: int) -> None:
    """Wait until the work queue has at least `least` messages."""
    async with asyncio.timeout(60):
        while await transport.depth(WORK) < least:  # noqa: ASYNC110 - the broker is polled
            await asyncio.sleep(0.01)


async def holds(transport: Transport, count: int) -> None:
    """Wait until the broker counts these dead letters, because it counts requeued ones late."""
    async with asyncio.timeout(60):
        while await transport.depth(DEAD) != count:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)


def audit_of(done: Ended) -> list[dict[str, object]]:
    return [
        json.loads(line)
        for line in done.err.splitlines()
        if line.startswith("{") and '"bus.audit"' in line
    ]


async def dead(url: str, *arguments: str) -> Ended:
    """Run `bus dead` on this broker."""
    return await bus("dead", *arguments, BUS_URL=url)


# --- Browsing ---


async def test_dead_letters_are_listed_without_their_payload(
    transport: Transport, vhost_url: str
) -> None:
    await bury(transport, "m-1")
    await bury(transport, "m-2", code="not_found", at=1_800_000_000_000)
    done = await dead(vhost_url, "list", "--queue", WORK)
    assert (done.code, SECRET in done.out + done.err) == (0, False)
    assert re.search(r"archive\.file\.v1 +internal +5 +m-1 +c-m-1", done.out)
    assert "2 dead letters" in done.err
    some = await dead(
        vhost_url, "list", "--queue", WORK, "--since", "2026-01-01", "--code", "not_found", "--json"
    )
    value = json.loads(some.out)
    assert ([each["id"] for each in value["letters"]], value["matching"], value["unseen"]) == (
        ["m-2"],
        1,
        0,
    )
    assert value["letters"][0]["record"]["last_at"] == 1_800_000_000_000
    assert sorted(await ids_in(vhost_url, DEAD)) == ["m-1", "m-2"]


async def test_a_type_or_code_that_no_letter_has_is_told_with_what_was_perhaps_meant(
    transport: Transport, vhost_url: str
) -> None:
    await bury(transport, "m-1")
    await bury(transport, "m-2", code="not_found")
    done = await dead(
        vhost_url,
        "list",
        "--queue",
        WORK,
        "--type",
        "archive.file.v2",
        "--code",
        "not-found",
        "--code",
        "internal",
    )
    assert (done.code, done.out) == (0, "")
    assert (
        "no dead letter has the type 'archive.file.v2'; did you mean 'archive.file.v1'?" in done.err
    )
    assert "no dead letter has the code 'not-found'; did you mean 'not_found'?" in done.err
    none = await dead(vhost_url, "purge", "--queue", WORK, "--type", "archive.file.v2", "--json")
    assert (none.code, none.out, "did you mean 'archive.file.v1'?" in none.err) == (0, "{}\n", True)
    await holds(transport, 2)


async def test_who_moves_letters_hears_of_what_was_mistyped(
    transport: Transport, vhost_url: str
) -> None:
    await bury(transport, "m-1")
    none = await dead(vhost_url, "replay", "--queue", WORK, "--type", "archive.file.v2")
    assert (none.code, none.out) == (0, "")
    assert (
        none.err == "no matching dead letters; no dead letter has the type 'archive.file.v2';"
        " did you mean 'archive.file.v1'?\n"
    )
    some = await dead(vhost_url, "replay", "m-1", "m-9", "--queue", WORK, "--dry-run", "--json")
    assert json.loads(some.out)[DEAD]["replayed"] == 1
    assert some.err == "no dead letter has the id 'm-9'\n"
    purged = await dead(vhost_url, "purge", "m-1", "m-9", "--queue", WORK, "--yes")
    assert (purged.code, "no dead letter has the id 'm-9'" in purged.err) == (0, True)


async def test_the_queues_of_a_service_are_found_by_the_management_api(
    transport: Transport, vhost_url: str, shared_broker: Broker
) -> None:
    await bury(transport, "m-1")
    where = {"BUS_URL": vhost_url, "BUS_MANAGEMENT_URL": management_url(shared_broker)}
    for arguments in (("--service", "archive"), ()):
        done = await bus("dead", "list", "--json", *arguments, **where)
        assert [each["id"] for each in json.loads(done.out)["letters"]] == ["m-1"], done.err
    other = await bus("dead", "list", "--service", "nobody", **where)
    assert (other.code, "service 'nobody' has no dead-letter queues" in other.err) == (
        os.EX_NOINPUT,
        True,
    )
    nearly = await bus("dead", "list", "--service", "archives", **where)
    assert (nearly.code, "; did you mean 'archive'?" in nearly.err) == (os.EX_NOINPUT, True)
    mistyped = await bus("dead", "list", "--queue", "archive.jobs.fill.v1", **where)
    assert (mistyped.code, f"; did you mean '{DEAD}'?" in mistyped.err) == (os.EX_NOINPUT, True)


async def test_a_payload_is_hidden_and_revealing_it_is_logged_with_who_did(
    transport: Transport, vhost_url: str
) -> None:
    await bury(transport, "m-1")
    hidden = await dead(vhost_url, "show", "m-1", "--queue", WORK)
    assert (hidden.code, SECRET in hidden.out + hidden.err, audit_of(hidden)) == (0, False, [])
    assert "reason          ValueError" in hidden.out
    shown = await dead(vhost_url, "show", "m-1", "--queue", WORK, "--reveal")
    assert (SECRET in shown.out, SECRET in shown.err) == (True, False)
    (line,) = audit_of(shown)
    assert (line["event"], line["message_id"], line["queue"]) == ("payload revealed", "m-1", DEAD)
    assert str(line["who"]).endswith(f"@{socket.gethostname()}")
    missing = await dead(vhost_url, "show", "m-9", "--queue", WORK)
    assert (missing.code, missing.err) == (
        os.EX_NOINPUT,
        (
            "error: dead letter 'm-9' was not found. List the dead letters with `bus dead list`. A "
            "failed job of a service with a store is in its store: run `bus jobs show ID`.\n"
        ),
    )


async def test_a_queue_that_is_not_there_is_told_by_name(vhost_url: str) -> None:
    done = await dead(vhost_url, "list", "--queue", "archive.jobs.nothing.v1")
    assert (done.code, "archive.jobs.nothing.v1.dead" in done.err) == (os.EX_NOINPUT, True)


# --- Replay, purge, export and import ---


async def test_a_replay_that_is_killed_loses_nothing_and_doubles_at_most_its_window(
    transport: Transport, vhost_url: str
) -> None:
    ids, window = [f"m-{number}" for number in range(400)], 20
    await bury(transport, *ids)
    arguments = ("dead", "replay", "--queue", WORK, "--rate", "150", "--window", str(window))
    for least in (60, 180):
        async with running(*arguments, BUS_URL=vhost_url) as process:
            await reached(transport, least)
            process.send_signal(signal.SIGKILL)
            await process.wait()
    done = await dead(vhost_url, "replay", "--queue", WORK)
    assert done.code == 0, done.err
    assert await ids_in(vhost_url, DEAD) == []
    back = await ids_in(vhost_url, WORK)
    assert set(back) == set(ids)
    assert len(back) - len(ids) <= 2 * window


async def test_a_replay_that_is_interrupted_says_what_it_moved(
    transport: Transport, vhost_url: str
) -> None:
    await bury(transport, *(f"m-{number}" for number in range(100)))
    async with running(
        "dead", "replay", "--queue", WORK, "--rate", "50", BUS_URL=vhost_url
    ) as process:
        await reached(transport, 10)
        process.send_signal(signal.SIGINT)
        done = await ended(process)
    (line,) = audit_of(done)
    assert (done.code, line["event"]) == (130, "replayed")
    moved, left = await ids_in(vhost_url, WORK), await ids_in(vhost_url, DEAD)
    assert len(moved) == line[DEAD]
    assert sorted(moved + left) == sorted(f"m-{number}" for number in range(100))


async def test_a_dry_run_a_replay_and_what_was_refused(
    transport: Transport, vhost_url: str
) -> None:
    await bury(transport, "m-1", "m-2")
    late = Envelope(
        id="late",
        type="archive.file.v1",
        role="job",
        source="desk",
        expires=1,
        headers={"dead-code": "internal"},
    )
    await transport.send(late, dead_letter_address(WORK), timeout=40)
    which = (await dead(vhost_url, "replay", "--queue", WORK, "--dry-run", "--json")).out
    assert json.loads(which)[DEAD] == {
        "matched": 3,
        "replayed": 2,
        "expired": 1,
        "unsigned": 0,
        "homeless": 0,
        "doubtful": 0,
        "unseen": 0,
    }
    assert await transport.depth(WORK) == 0
    done = await dead(vhost_url, "replay", "--queue", WORK)
    assert (
        done.code,
        "not replayed: 1 expired (use --extend TIME to give them time)" in done.err,
    ) == (
        os.EX_CONFIG,
        True,
    )
    (line,) = audit_of(done)
    assert (line["event"], line[DEAD]) == ("replayed", 2)
    assert (await dead(vhost_url, "replay", "late", "--queue", WORK, "--extend", "1h")).code == 0
    assert sorted(await ids_in(vhost_url, WORK)) == ["late", "m-1", "m-2"]


async def test_who_moves_or_deletes_says_which(vhost_url: str) -> None:
    for command in ("replay", "purge"):
        done = await dead(vhost_url, command)
        assert (done.code, "--all" in done.err) == (2, True)


async def test_a_purge_asks_and_deletes_what_it_counted(
    transport: Transport, vhost_url: str
) -> None:
    await bury(transport, "m-1", "m-2")
    await bury(transport, "m-3", code="not_found")
    # Standard input is empty, which the command reads as "no".
    asked = await dead(vhost_url, "purge", "--queue", WORK, "--code", "internal")
    assert (asked.code, "Delete 2 dead letters permanently?" in asked.err) == (1, True)
    await holds(transport, 3)
    done = await dead(vhost_url, "purge", "--queue", WORK, "--code", "internal", "--yes")
    assert (done.code, audit_of(done)[0][DEAD]) == (0, 2), done.err
    last = await dead(vhost_url, "purge", "--queue", WORK, "--all", "--yes", "--json")
    assert (last.code, json.loads(last.out)) == (0, {DEAD: {"matched": 1, "deleted": 1}}), last.err
    assert await ids_in(vhost_url, DEAD) == []


async def test_dead_letters_survive_in_a_file_that_its_owner_alone_may_read(
    transport: Transport, vhost_url: str, tmp_path: Path
) -> None:
    await bury(transport, "m-1")
    file = tmp_path / "letters.jsonl"
    assert (await dead(vhost_url, "export", str(file), "--queue", WORK)).code == 2
    assert not file.exists()
    done = await dead(vhost_url, "export", str(file), "--queue", WORK, "--reveal", "--json")
    assert json.loads(done.out) == {"file": str(file), "letters": 1, "unseen": 0}
    assert (done.code, file.stat().st_mode & 0o777, audit_of(done)[0]["letters"]) == (0, 0o600, 1)
    assert (
        await dead(vhost_url, "export", str(file), "--queue", WORK, "--reveal")
    ).code == os.EX_CANTCREAT
    (before,) = await browse(transport, WORK)
    assert (await dead(vhost_url, "purge", "--queue", WORK, "--all", "--yes")).code == 0
    put_back = await dead(vhost_url, "import", str(file), "--json")
    assert (put_back.code, json.loads(put_back.out)) == (0, {"file": str(file), "letters": 1})
    (after,) = await browse(transport, WORK)
    assert after.envelope.replace(received=0) == before.envelope.replace(received=0)


async def test_hostile_and_unroutable_dead_letters_are_put_back_where_they_were(
    transport: Transport, vhost_url: str, tmp_path: Path
) -> None:
    headers: dict[str, Any] = {
        "": 1,
        "first-failed-at": 2**60,
        "dead-code": "x",
        "dead-reason": "r" * 20_000,
    }
    places = (DEAD, unroutable_queue("archive"))
    async with await aio_pika.connect(vhost_url) as connection:
        exchange = (await connection.channel()).default_exchange
        for queue in places:
            message = aio_pika.Message(b"{}", message_id=f"m in {queue}", headers=headers)
            await exchange.publish(message, queue)
    found = {queue: (await browse_queue(transport, queue)).letters for queue in places}
    write(tmp_path / "letters.jsonl", [letter for (letter,) in found.values()])
    for queue in places:
        assert await ids_in(vhost_url, queue) == [f"m in {queue}"]
    with ExportReader(tmp_path / "letters.jsonl") as letters:
        await Import(1).send(transport, letters)
    for queue in places:
        (after,) = (await browse_queue(transport, queue)).letters
        assert (after.id, after.headers) == (f"m in {queue}", headers)


async def test_a_file_that_is_none_of_ours_is_refused_and_not_shown(
    vhost_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "letters.jsonl"
    file.write_text(json.dumps({"patient": SECRET}), encoding="utf-8")
    done = await dead(vhost_url, "import", str(file))
    assert (done.code, "line 1" in done.err, SECRET in done.err) == (os.EX_DATAERR, True, False)


# --- Channels ---


@pytest.mark.parametrize("fastlane", [True, False], ids=["fast lane", "plain"])
async def test_who_looks_and_serves_again_and_again_leaves_no_channel_behind(
    vhost_url: str, fastlane: bool
) -> None:
    router = Router("archive")

    @router.job(FileAway)
    async def file_away(job: FileAway) -> None: ...

    async with Bus(
        "archive", settings=Settings(url=SecretStr(vhost_url), fastlane=fastlane)
    ) as archive:
        async with archive.serving(router):
            await archive.dead_letters(WORK)
        before = channels(archive)
        for _ in range(3):
            async with archive.serving(router):
                await archive.dead_letters(WORK)
        assert channels(archive) == before


def channels(bus: Bus) -> int:
    transport = bus._transport
    assert isinstance(transport, RabbitMQTransport)
    return sum(len(open_on(link)) for link in transport._links)


def open_on(link: SupervisedConnection) -> list[AbstractChannel]:
    return [
        channel
        for channel in link._underlay().channels.values()
        if channel is not None and not channel.is_closed
    ]


async def test_a_short_id_and_a_type_without_version_select_dead_letters(
    transport: Transport, vhost_url: str
) -> None:
    ids = [f"{number}{UUID_END}" for number in ("1bca79", "1bca7a", "9cbb82")]
    await bury(transport, *ids)
    replayed = await dead(vhost_url, "replay", "9cbb", "--type", "archive.file", "--queue", WORK)
    assert (replayed.code, f"id '9cbb' is {ids[2]}" in replayed.err) == (0, True)
    purged = await dead(vhost_url, "purge", "1bca79", "--queue", WORK, "--yes")
    assert (purged.code, "deleted 1 dead letter" in purged.err) == (0, True)
    assert await ids_in(vhost_url, WORK) == [ids[2]]
    assert await ids_in(vhost_url, DEAD) == [ids[1]]
