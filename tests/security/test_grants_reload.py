"""Rights that are given and taken away while services run."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bus import Bus, Router
from bus.contracts.contract import contract_of
from bus.errors import ConfigurationError, PermissionDenied
from bus.messaging.fault_record import PARKED
from bus.messaging.topology.names import event_queue, job_queue
from bus.security.current_grants import CurrentGrants
from bus.security.grants import Grants, GrantsSource, ServiceGrants
from bus.security.grants_file import MAX_GRANTS_BYTES
from tests.security.deployment import GRANTS, Deployment
from tests.security.test_buses import on_virtual_time, running
from tests.security.world import Ledger as LedgerOf
from tests.security.world import World, codes, message
from tests.unit.fakes import FakeDelivery, settle_down, virtual
from tests.unit.ledger import Add, BooksClosed, CloseBooks

WITHOUT_CALLS = GRANTS.replace('call = ["ledger.add", "ledger.total", "ledger.close"]', "call = []")
WITHOUT_CONSUME = GRANTS.replace('consume = ["ledger.closed"]', "consume = []")
WITHOUT_PUBLISH = GRANTS.replace('publish = ["ledger.closed"]', "publish = []")
MINUTE = 60


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


@pytest.fixture
def senders(tmp_path: Path) -> Path:
    """Return a grants file that only the sender reads. It allows everything that GRANTS allows."""
    path = tmp_path / "senders.toml"
    path.write_text(GRANTS)
    return path


async def seconds_until_refused(call: Callable[[], Awaitable[object]]) -> float:
    loop = asyncio.get_running_loop()
    began = loop.time()
    while loop.time() < began + 2 * MINUTE:
        try:
            await call()
        except PermissionDenied:
            break
        await asyncio.sleep(1)
    return loop.time() - began


# --- A right is taken away ---


def test_a_right_that_was_taken_away_ends_within_a_minute_although_the_token_is_cached(
    deployment: Deployment, senders: Path
) -> None:
    async def scene() -> None:
        async with running(deployment) as (buses, _, _):
            office = await buses.bus("office", **deployment.of("office", grants=senders))
            assert (await office.request(Add())).total == 2
            deployment.grants.write_text(WITHOUT_CALLS)
            assert await seconds_until_refused(lambda: office.request(Add())) <= MINUTE
            with pytest.raises(PermissionDenied, match=r"office has no right to ledger\.add"):
                await office.request(Add())

    on_virtual_time(scene())


def test_a_sender_that_reads_the_same_file_sends_nothing_after_the_minute(
    deployment: Deployment,
) -> None:
    async def scene() -> None:
        async with running(deployment) as (buses, ledger, _):
            office = await buses.bus("office", **deployment.of("office"))
            await office.submit(CloseBooks(year=1998))
            deployment.grants.write_text(WITHOUT_CALLS)
            await asyncio.sleep(MINUTE)
            with pytest.raises(PermissionDenied, match=r"office has no right to call ledger\.cl"):
                await office.submit(CloseBooks(year=1999))
            assert ledger.closed == [1998]

    on_virtual_time(scene())


def test_a_job_of_a_sender_that_lost_the_right_waits_once_and_is_dead_lettered(
    deployment: Deployment, senders: Path
) -> None:
    async def scene() -> None:
        async with running(deployment) as (buses, ledger, owner):
            office = await buses.bus("office", **deployment.of("office", grants=senders))
            deployment.grants.write_text(WITHOUT_CALLS)
            await asyncio.sleep(MINUTE)
            began = asyncio.get_running_loop().time()
            job = await office.submit(CloseBooks(year=1999))
            with pytest.raises(PermissionDenied, match=r"office has no right to ledger\.close"):
                await job.result(timeout=MINUTE)
            assert 30 <= asyncio.get_running_loop().time() - began < 40
            (letter,) = await owner.dead_letters(job_queue(contract_of(CloseBooks)))
            assert (letter.record.code, ledger.closed) == ("permission_denied", [])

    on_virtual_time(scene())


@virtual
async def test_a_job_that_was_signed_before_the_right_ended_is_refused() -> None:
    await refused_although_it_was_signed_before("job")


@virtual
async def test_an_event_that_was_signed_before_the_right_ended_is_refused() -> None:
    await refused_although_it_was_signed_before("event")


async def refused_although_it_was_signed_before(role: str) -> None:
    world = await World.started()
    signed = world.job() if role == "job" else world.event()
    ledger = LedgerOf(world, role)
    world.yard.grants = Grants({"office": ServiceGrants(), "ledger": ServiceGrants()})
    world.yard.clock.now += 30
    assert ledger.gate._verifier.refresh_grants()
    ledger.receiver.on_delivery(FakeDelivery(signed))
    await settle_down()
    (waiting,) = ledger.sent
    assert PARKED in waiting.envelope.headers
    assert ledger.gate._verifier.rejections == {}, "it is not refused yet"
    world.yard.clock.now += 30
    ledger.receiver.on_delivery(FakeDelivery(waiting.envelope))
    await settle_down()
    assert codes(ledger.sent[1:2]) == ["permission_denied"]
    assert ledger.handled == []
    assert ledger.gate._verifier.rejections == {"permission_denied": 1}


@virtual
async def test_a_job_that_already_waits_is_refused_if_the_right_ends_meanwhile() -> None:
    """Let a job wait for its key, and publish the key, but take the right away."""
    world = await World.started()
    signed = world.job()
    ledger = LedgerOf(world, "job")
    public = world.yard.public.pop("office-1")
    world.yard.clock.now += 10
    await world.rings["ledger"].refresh()
    ledger.receiver.on_delivery(FakeDelivery(signed))
    await settle_down()
    (waiting,) = ledger.sent
    world.yard.public["office-1"] = public
    world.yard.grants = Grants({"office": ServiceGrants()})
    world.yard.clock.now += 30
    assert ledger.gate._verifier.refresh_grants()
    ledger.receiver.on_delivery(FakeDelivery(waiting.envelope))
    await settle_down()
    assert codes(ledger.sent[1:2]) == ["permission_denied"]
    assert ledger.handled == []


@virtual
async def test_a_sender_that_was_removed_receives_no_reply() -> None:
    world = await World.started()
    ledger = LedgerOf(world, "request")
    ledger.receiver.on_delivery(FakeDelivery(world.request(id="before")))
    await settle_down()
    assert len(ledger.sent) == 1
    world.yard.grants = Grants({"ledger": ServiceGrants()})
    assert ledger.gate._verifier.refresh_grants() is False, "it was read a moment ago"
    world.yard.clock.now += 10
    assert ledger.gate._verifier.refresh_grants() is True
    ledger.receiver.on_delivery(FakeDelivery(world.request(id="after")))
    await settle_down()
    assert (len(ledger.sent), len(ledger.handled)) == (1, 1)


@virtual
async def test_an_event_of_another_service_does_not_wait_because_no_grant_can_permit_it() -> None:
    world = await World.started()
    forged = world.signer("office").sign(
        message(
            "event",
            "ledger.closed.v1",
            "office",
            queue=event_queue("ledger", contract_of(BooksClosed)),
            expires=int((world.yard.clock() + 60) * 1000),
        )
    )
    ledger = LedgerOf(world, "event")
    ledger.receiver.on_delivery(FakeDelivery(forged))
    await settle_down()
    assert codes(ledger.sent) == ["permission_denied"]


def write(path: Path, text: str) -> None:
    path.write_text(text)


def listener() -> tuple[Router, list[int]]:
    heard: list[int] = []
    mail = Router("mail")

    @mail.event(BooksClosed)
    async def on_closed(event: BooksClosed) -> None:
        heard.append(event.year)

    return mail, heard


@pytest.mark.parametrize(
    ("text", "who"), [(WITHOUT_CONSUME, "mail"), (WITHOUT_PUBLISH, "ledger")], ids=["read", "send"]
)
def test_events_whose_right_ended_are_kept_as_dead_letters_and_can_be_replayed(
    deployment: Deployment, senders: Path, text: str, who: str
) -> None:
    async def scene() -> None:
        router, heard = listener()
        queue = event_queue("mail", contract_of(BooksClosed))
        async with running(deployment) as (buses, _, owner):
            theirs = deployment.of("mail", grants=senders)
            mail: Bus = await buses.bus("mail", **theirs)
            await buses.serve(mail, router)
            write(senders, text)
            await asyncio.sleep(MINUTE)
            await owner.publish(BooksClosed(year=1999))
            await asyncio.sleep(MINUTE)
            (letter,) = await mail.dead_letters(queue)
            assert letter.record.code == "permission_denied"
            assert f"{who} has no right to" in str(letter.record.reason)
            write(senders, GRANTS)
            await asyncio.sleep(MINUTE)
            assert (await mail.replay(queue)).replayed == 1
            await asyncio.sleep(1)
            assert heard == [1999]

    on_virtual_time(scene())


# --- A right is given ---


def test_a_new_right_works_within_a_minute_for_the_sender_and_the_receiver(
    deployment: Deployment,
) -> None:
    deployment.grants.write_text(WITHOUT_CALLS)

    async def scene() -> None:
        async with running(deployment) as (buses, _, _):
            office = await buses.bus("office", **deployment.of("office"))
            with pytest.raises(PermissionDenied, match="Grant it in"):
                await office.request(Add())
            deployment.grants.write_text(GRANTS)
            await asyncio.sleep(MINUTE)
            assert (await office.request(Add())).total == 2

    on_virtual_time(scene())


def test_a_request_without_a_right_makes_sender_and_receiver_read_the_grants_after_ten_seconds(
    deployment: Deployment,
) -> None:
    deployment.grants.write_text(WITHOUT_CALLS)

    async def scene() -> None:
        async with running(deployment) as (buses, _, _):
            office = await buses.bus("office", **deployment.of("office"))
            deployment.grants.write_text(GRANTS)
            await asyncio.sleep(10)
            assert (await office.request(Add())).total == 2

    on_virtual_time(scene())


def test_a_job_that_is_sent_before_its_grant_arrives_is_handled_and_not_lost(
    deployment: Deployment, senders: Path
) -> None:
    deployment.grants.write_text(WITHOUT_CALLS)

    async def scene() -> None:
        async with running(deployment) as (buses, ledger, owner):
            office = await buses.bus("office", **deployment.of("office", grants=senders))
            job = await office.submit(CloseBooks(year=2001))
            await asyncio.sleep(5)
            deployment.grants.write_text(GRANTS)
            assert (await job.result(timeout=MINUTE)).total == 2001
            assert ledger.closed == [2001]
            assert await owner.dead_letters(job_queue(contract_of(CloseBooks))) == []

    on_virtual_time(scene())


def test_a_file_that_is_replaced_as_kubernetes_does_it_is_read_although_its_time_is_the_same(
    deployment: Deployment, tmp_path: Path
) -> None:
    for name, text in (("first", GRANTS), ("second", WITHOUT_CALLS)):
        (tmp_path / name).mkdir()
        file = tmp_path / name / "grants.toml"
        file.write_text(text)
        os.utime(file, (1, 1))
    (tmp_path / "..data").symlink_to("first")
    deployment.grants = tmp_path / "mounted.toml"
    deployment.grants.symlink_to("..data/grants.toml")

    async def scene() -> None:
        async with running(deployment) as (buses, _, _):
            office = await buses.bus("office", **deployment.of("office"))
            assert (await office.request(Add())).total == 2
            (tmp_path / "..next").symlink_to("second")
            (tmp_path / "..next").replace(tmp_path / "..data")
            assert await seconds_until_refused(lambda: office.request(Add())) <= MINUTE

    on_virtual_time(scene())


# --- A file that cannot be used ---


def _broken(path: Path) -> None:
    path.write_text("[services.office")


def _faulty(path: Path) -> None:
    path.write_text('[services.office]\ncal = ["ledger.add"]')


def _large(path: Path) -> None:
    path.write_text("#" * (MAX_GRANTS_BYTES + 1))


def _nested(path: Path) -> None:
    path.write_text("a = " + "[" * 100_000)


def _long_number(path: Path) -> None:
    path.write_text("a = " + "1" * 10_000)


def _emptied(path: Path) -> None:
    path.write_text("")


def _blank(path: Path) -> None:
    path.write_text(" \n\n")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _world_writable(path: Path) -> None:
    path.write_text(WITHOUT_CALLS)
    path.chmod(0o666)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_broken, "is not TOML"),
        (_faulty, "unknown key 'cal'"),
        (_large, "is larger than 262144 bytes"),
        (_nested, "is not TOML"),
        (_long_number, "is not TOML"),
        (_emptied, "is empty. Write the grants into it, or a comment"),
        (_blank, "is empty. Write the grants into it, or a comment"),
        (_pipe, "is not a regular file"),
        (_world_writable, "has mode 666. Other users must not write to it: run `chmod o-w "),
        (Path.unlink, "cannot be read: No such file"),
    ],
)
def test_while_the_grants_cannot_be_read_the_last_good_ones_stay_and_that_is_said_once(
    deployment: Deployment,
    spoil: Callable[[Path], None],
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scene() -> None:
        async with running(deployment) as (buses, _, _):
            office = await buses.bus("office", **deployment.of("office"))
            caplog.clear()
            caplog.set_level(logging.INFO, "bus.auth")
            spoil(deployment.grants)
            await asyncio.sleep(5 * MINUTE)
            assert (await office.request(Add())).total == 2
            told = [each.getMessage() for each in caplog.records if each.name == "bus.auth"]
            assert len(told) == 2, "one line of each service"
            assert f"{deployment.grants}" in told[0]
            assert why in told[0]
            assert told[0].endswith("; the last valid grants stay in use")
            caplog.clear()
            deployment.grants.unlink(missing_ok=True)
            deployment.grants.write_text(WITHOUT_CALLS)
            await asyncio.sleep(MINUTE)
            with pytest.raises(PermissionDenied):
                await office.request(Add())
            told = [each.getMessage() for each in caplog.records if each.name == "bus.auth"]
            assert told.count("BUS_GRANTS can be read again") == 2
            assert told.count("BUS_GRANTS has changed; the new grants are in use") == 2

    on_virtual_time(scene())


@virtual
async def test_a_file_with_the_same_fault_is_parsed_once() -> None:
    parsed: list[str] = []

    def parse(text: str) -> Grants:
        parsed.append(text)
        if text == "wrong":
            raise ConfigurationError("grants.toml:1: unknown key 'wrong'")
        return Grants({})

    texts = iter(["right", "wrong", "wrong", "wrong", "right again", "wrong"])
    current = CurrentGrants(GrantsSource(lambda: next(texts), parse))
    current.read()
    for _ in range(3):
        with pytest.raises(ConfigurationError, match="unknown key 'wrong'"):
            current.read()
    current.read()
    with pytest.raises(ConfigurationError, match="unknown key 'wrong'"):
        current.read()
    assert parsed == ["right", "wrong", "right again", "wrong"]


@virtual
async def test_a_file_with_only_a_comment_takes_every_right_away() -> None:
    texts = iter(["right", "# Nobody.\n"])
    rights = {"right": Grants({"office": ServiceGrants()})}
    source = GrantsSource(lambda: next(texts), lambda text: rights.get(text, Grants({})))
    current = CurrentGrants(source)
    current.read()
    current.read()
    assert current.policy == Grants({})


@virtual
async def test_an_unexpected_error_does_not_end_the_reading_of_the_grants(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fault: list[Exception] = []
    granted = [Grants({"office": ServiceGrants()})]

    def read_text() -> str:
        if fault:
            raise fault[0]
        return str(granted[0])

    current = CurrentGrants(GrantsSource(read_text, lambda _: granted[0]))
    current.read()
    reading = asyncio.ensure_future(current.run())
    fault.append(RuntimeError("Eleonora Quist"))
    await asyncio.sleep(31)
    (warning,) = [each.getMessage() for each in caplog.records]
    assert warning == (
        "the grants cannot be read (RuntimeError); the last valid grants stay in use"
    )
    fault.clear()
    granted[0] = Grants({})
    await asyncio.sleep(30)
    assert current.policy is granted[0]
    reading.cancel()


@virtual
async def test_many_refusals_read_the_grants_once_in_ten_seconds() -> None:
    reads: list[float] = []
    loop = asyncio.get_running_loop()

    def read() -> str:
        reads.append(loop.time())
        return ""

    current = CurrentGrants(GrantsSource(read, lambda _: Grants({})))
    current.read()
    for _ in range(60):
        for _ in range(100):
            current.refresh()
        await asyncio.sleep(1)
    assert len(reads) == 6


@virtual
async def test_an_unchanged_file_keeps_the_cached_tokens() -> None:
    cleared: list[int] = []
    text = ["one"]
    current = CurrentGrants(
        GrantsSource(lambda: text[0], lambda _: Grants({"office": ServiceGrants()}))
    )
    current.read()
    current.on_change.append(lambda: cleared.append(1))
    text[0] = "another comment, and the same permissions"
    await asyncio.sleep(30)
    assert current.refresh() is False
    assert cleared == []
