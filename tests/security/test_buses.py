"""Complete buses on the model broker, with keys and grants in files as in a deployment."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bus import Bus, Context, Router
from bus.contracts.contract import contract_of
from bus.errors import ConfigurationError, PermissionDenied, Unauthenticated
from bus.messaging.topology.names import job_queue
from bus.operations.dead_letters import Selection
from bus.security.tokens import TOKEN_LIFETIME_SECONDS
from bus.settings import Settings
from bus.testing import MemoryBuses, VirtualLoop, wall_clock
from tests.security.deployment import Deployment
from tests.unit.ledger import Add, BooksClosed, CloseBooks, GetTotal, Total

HOUR = 3600
SECRET = "a secret that all services of this test share"


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


class Ledger:
    def __init__(self) -> None:
        self.closed: list[int] = []
        self.broken = False
        self.router = Router("ledger")

        @self.router.request(Add)
        async def add(request: Add) -> Total:
            return Total(total=request.amount + 1)

        @self.router.request(GetTotal)
        async def total(request: GetTotal, context: Context) -> Total:
            return Total(total=0)

        @self.router.job(CloseBooks)
        async def close(job: CloseBooks, context: Context) -> Total:
            if self.broken:
                raise PermissionDenied("the year is closed")
            self.closed.append(job.year)
            await context.progress(0.5, "half")
            await context.bus.publish(BooksClosed(year=job.year))
            return Total(total=job.year)


@asynccontextmanager
async def running(
    deployment: Deployment, **settings: Any
) -> AsyncIterator[tuple[MemoryBuses, Ledger, Bus]]:
    ledger, operator_key = Ledger(), str(deployment.keys.key_file("ida"))
    async with MemoryBuses(clock=wall_clock) as buses:
        owner = await buses.bus(
            "ledger", **deployment.of("ledger", operator_key=operator_key, **settings)
        )
        await buses.serve(owner, ledger.router)
        yield buses, ledger, owner


def on_virtual_time(test: Coroutine[Any, Any, None]) -> None:
    """Run a test on a loop that skips waits, but uses real time to read keys and to connect."""

    async def jumping() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.skip_waits()
        await test

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(jumping())


def test_signed_messages_of_every_kind_arrive(deployment: Deployment) -> None:
    async def scene() -> None:
        async with running(deployment) as (buses, ledger, _):
            heard: list[int] = []
            mail = Router("mail")

            @mail.event(BooksClosed)
            async def on_closed(event: BooksClosed) -> None:
                heard.append(event.year)

            await buses.serve(await buses.bus("mail", **deployment.of("mail")), mail)
            office = await buses.bus("office", **deployment.of("office"))
            assert (await office.request(Add(amount=4))).total == 5
            job = await office.submit(CloseBooks(year=1999))
            assert [update.progress async for update in job.updates()] == [0.5]
            assert (await job.result()).total == 1999
            assert (ledger.closed, heard) == ([1999], [1999])

    on_virtual_time(scene())


def test_a_request_can_wait_for_its_service_longer_than_a_token_is_valid(
    deployment: Deployment,
) -> None:
    async def scene() -> None:
        async with MemoryBuses(clock=wall_clock) as buses:
            office = await buses.bus("office", **deployment.of("office"))
            waiting = asyncio.create_task(
                office.request(Add(amount=4), timeout=HOUR, wait_for_service=True)
            )
            await asyncio.sleep(2 * TOKEN_LIFETIME_SECONDS)
            owner = await buses.bus("ledger", **deployment.of("ledger"))
            await buses.serve(owner, Ledger().router)
            assert (await waiting).total == 5

    on_virtual_time(scene())


def test_who_was_not_granted_it_is_refused_at_once(
    deployment: Deployment, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Grant the call in the sender's own file, which has no effect: the receiver's file decides."""
    its_own = tmp_path / "its-own.toml"
    its_own.write_text('[services.mail]\ncall = ["ledger.add", "ledger.close"]\n')

    async def scene() -> None:
        async with running(deployment) as (buses, ledger, _):
            mail = await buses.bus("mail", **deployment.of("mail", grants=its_own))
            with pytest.raises(PermissionDenied, match=r"mail has no right to ledger\.add"):
                await mail.request(Add())
            job = await mail.submit(CloseBooks())
            with pytest.raises(PermissionDenied, match=r"mail has no right to ledger\.close"):
                await job.result()
            assert ledger.closed == []

    on_virtual_time(scene())
    refusals = [record for record in caplog.records if " rejected: " in record.message]
    assert [getattr(record, "code", None) for record in refusals] == ["permission_denied"] * 2
    assert "eyJ" not in str([record.__dict__ for record in caplog.records])


def test_who_does_not_sign_is_refused_at_once(deployment: Deployment) -> None:
    async def scene() -> None:
        async with running(deployment) as (buses, _, _):
            office = await buses.bus("office", auth="off")
            with pytest.raises(Unauthenticated, match="the message has no token"):
                await office.request(Add())

    on_virtual_time(scene())


def test_a_service_with_an_unknown_key_is_refused_until_the_key_is_known(
    deployment: Deployment, tmp_path: Path
) -> None:
    """Publish the key while a job waits for it: the receiver reads the key set again."""
    set_file = deployment.keys.set_file
    all_keys = set_file.read_text()
    without = {"keys": [each for each in json.loads(all_keys)["keys"] if each["iss"] != "office"]}
    theirs = tmp_path / "theirs.json"
    theirs.write_text(json.dumps(without))

    async def scene() -> None:
        ledger = Ledger()
        async with MemoryBuses(clock=wall_clock) as buses:
            await buses.serve(
                await buses.bus("ledger", **deployment.of("ledger", jwks=str(theirs))),
                ledger.router,
            )
            office = await buses.bus("office", **deployment.of("office"))
            with pytest.raises(Unauthenticated, match="not in the receiver's BUS_JWKS"):
                await office.request(Add())
            known = await office.submit(CloseBooks(year=2001))
            await asyncio.sleep(5)
            theirs.write_text(all_keys)
            assert (await known.result(timeout=120)).total == 2001
            theirs.write_text(json.dumps(without))
            await asyncio.sleep(120)
            unknown = await office.submit(CloseBooks(year=2002))
            with pytest.raises(Unauthenticated, match="not in the receiver's BUS_JWKS"):
                await unknown.result(timeout=120)
            assert ledger.closed == [2001]

    on_virtual_time(scene())


def test_a_rotation_under_way_refuses_nothing(deployment: Deployment) -> None:
    async def scene() -> None:
        async with running(deployment) as (buses, ledger, _):
            office = await buses.bus("office", **deployment.of("office"))
            for number in range(20):
                if number in {2, 8, 14}:
                    begins = int(wall_clock()) + 120
                    for owner in ("office", "ledger"):
                        deployment.keys.rotate(
                            owner, f"{owner}-at-{number}", begins=begins, retires=begins + 1
                        )
                assert (await office.request(Add())).total == 2
                assert (
                    await (await office.submit(CloseBooks(year=number))).result()
                ).total == number
                await asyncio.sleep(30)
            assert ledger.closed == [*range(20)]
            used = {each["kid"] for each in deployment.keys.public() if each["iss"] == "office"}
            assert len(used) == 4

    on_virtual_time(scene())


def test_a_dead_job_is_handled_hours_later_by_an_operators_word_and_no_fourth_time(
    deployment: Deployment,
) -> None:
    queue = job_queue(contract_of(CloseBooks))

    async def scene() -> None:
        async with running(deployment) as (buses, ledger, owner):
            ledger.broken = True
            office = await buses.bus("office", **deployment.of("office", message_ttl=HOUR))
            job = await office.submit(CloseBooks(year=1999))
            with pytest.raises(PermissionDenied):
                await job.result()
            with pytest.raises(ConfigurationError, match="requires a reason"):
                await owner.replay(queue, extend=60)
            for _ in range(3):
                await asyncio.sleep(2 * HOUR)
                assert (await owner.replay(queue)).expired == 1
                assert (
                    await owner.replay(queue, extend=60, reason="the printer was down")
                ).replayed == 1
                await asyncio.sleep(5)
            assert [letter.record.code for letter in await owner.dead_letters(queue)] == [
                "permission_denied"
            ]
            await asyncio.sleep(2 * HOUR)
            done = await owner.replay(queue, extend=60, reason="once more")
            assert (done.replayed, done.needs_operator) == (0, 1)
            (letter,) = await owner.dead_letters(queue, Selection(ids=frozenset({job.id})))
            assert "eyJ" not in repr(letter)

    on_virtual_time(scene())


def test_after_its_replay_a_dead_job_is_done(deployment: Deployment) -> None:
    queue = job_queue(contract_of(CloseBooks))

    async def scene() -> None:
        async with running(deployment) as (buses, ledger, owner):
            ledger.broken = True
            office = await buses.bus("office", **deployment.of("office", message_ttl=HOUR))
            await office.submit(CloseBooks(year=1999))
            await asyncio.sleep(2 * HOUR)
            ledger.broken = False
            assert (
                await owner.replay(queue, extend=60, reason="the printer was down")
            ).replayed == 1
            await asyncio.sleep(5)
            assert ledger.closed == [1999]

    on_virtual_time(scene())


def test_more_time_than_a_proof_can_have_is_refused_before_anything_is_moved(
    deployment: Deployment,
) -> None:
    """Extend a message for too long: its receiver would reject the override.

    The rejected override would still count as one of the three.
    """
    queue = job_queue(contract_of(CloseBooks))

    async def scene() -> None:
        async with running(deployment) as (buses, ledger, owner):
            ledger.broken = True
            office = await buses.bus("office", **deployment.of("office", message_ttl=HOUR))
            await office.submit(CloseBooks(year=1999))
            await asyncio.sleep(2 * HOUR)
            with pytest.raises(ConfigurationError, match="31 days"):
                await owner.replay(queue, extend=31 * 24 * HOUR, reason="the printer was down")
            (letter,) = await owner.dead_letters(queue)
            assert letter.envelope.expiry_override is None

    on_virtual_time(scene())


def test_a_service_does_not_give_more_time(deployment: Deployment) -> None:
    async def scene() -> None:
        async with MemoryBuses(clock=wall_clock) as buses:
            owner = await buses.bus("ledger", **deployment.of("ledger"))
            with pytest.raises(ConfigurationError, match="requires an operator's key"):
                await owner.replay("ledger.jobs.close.v1", extend=60, reason="because")
            owner = await buses.bus(
                "ledger",
                **deployment.of("ledger", operator_key=str(deployment.keys.key_file("ledger"))),
            )
            with pytest.raises(
                ConfigurationError,
                match="BUS_OPERATOR_KEY belongs to the service 'ledger', but an operator's key is",
            ):
                await owner.replay("ledger.jobs.close.v1", extend=60, reason="because")

    on_virtual_time(scene())


def test_a_subscription_without_the_right_does_not_start(deployment: Deployment) -> None:
    async def scene() -> None:
        async with MemoryBuses(clock=wall_clock) as buses:
            router = Router("office")

            @router.event(BooksClosed)
            async def on_closed(event: BooksClosed) -> None: ...

            office = await buses.bus("office", **deployment.of("office"))
            with pytest.raises(
                ConfigurationError,
                match=r"office may not consume ledger\.closed\. Grant it in .*\.toml: "
                r"\[services\.office\] consume = \[\"ledger\.closed\"\]",
            ):
                await buses.serve(office, router)

    on_virtual_time(scene())


# --- Settings ---


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("key", "BUS_KEY is not set.*`bus keys new ledger`.*BUS_AUTH=off"),
        ("jwks", "BUS_JWKS is not set.*jwks.json that `bus keys new`.*BUS_AUTH=off"),
        ("grants", "BUS_GRANTS is not set.*grants.toml"),
    ],
)
def test_a_bus_without_keys_or_grants_does_not_start(
    missing: str, why: str, deployment: Deployment
) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Bus("ledger", settings=Settings(**{**deployment.of("ledger"), missing: None}))


def test_a_bus_whose_messages_would_outlast_their_proofs_does_not_start(
    deployment: Deployment,
) -> None:
    """Set a message TTL at which every receiver would reject every event and job."""
    with pytest.raises(ConfigurationError, match="BUS_MESSAGE_TTL"):
        Bus("ledger", settings=Settings(**deployment.of("ledger", message_ttl=31 * 24 * HOUR)))
    Bus("ledger", settings=Settings(**deployment.of("ledger", message_ttl=31 * 24 * HOUR - 1)))
    Bus("ledger", settings=Settings(auth="off", message_ttl=32 * 24 * HOUR))


def test_a_bus_that_signs_nothing_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        Bus("ledger", settings=Settings(auth="off"))
    assert "BUS_AUTH=off: messages are neither signed nor verified" in caplog.text


def test_for_development_one_secret_serves_all(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        ledger = Ledger()
        async with MemoryBuses(clock=wall_clock) as buses:
            await buses.serve(await buses.bus("ledger", auth="dev", key=SECRET), ledger.router)
            office = await buses.bus("office", auth="dev", key=SECRET)
            assert (await office.request(Add())).total == 2
            assert (await (await office.submit(CloseBooks(year=1999))).result()).total == 1999
            stranger = await buses.bus("office", auth="dev", key=SECRET + "!")
            with pytest.raises(
                Exception,
                match=r"^ledger\.add\.v1: no reply within 1 s\. A reply was rejected: "
                "the JWT signature does not match",
            ):
                await stranger.request(Add(), timeout=1)

    on_virtual_time(scene())
    assert "BUS_AUTH=dev: every service has the same secret" in caplog.text


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"at least 32 bytes \(UTF-8\)"):
        Bus("ledger", settings=Settings(auth="dev", key=SecretStr("short")))


def test_the_settings_show_no_key() -> None:
    settings = Settings(key=SecretStr("hunter2"), operator_key=SecretStr("hunter3"))
    assert "hunter" not in repr(settings)


async def test_services_of_one_process_sign_with_their_own_keys_of_one_directory(
    deployment: Deployment,
) -> None:
    shared = deployment.of("ledger", key=str(deployment.keys.path))
    sources: list[str | None] = []
    router = Router("ledger")

    @router.request(Add)
    async def add(request: Add, context: Context) -> Total:
        sources.append(context.envelope.source)
        return Total(total=request.amount)

    async with MemoryBuses() as buses:
        ledger, office = await buses.bus("ledger", **shared), await buses.bus("office", **shared)
        await buses.serve(ledger, router)
        assert await office.request(Add(amount=3), timeout=10) == Total(total=3)
    assert sources == ["office"]
