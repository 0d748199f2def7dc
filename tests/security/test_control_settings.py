"""Discovery as the settings specify it: with keys, with a shared secret, and for an operator."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typing_extensions import override

from bus import (
    Bus,
    ConfigurationError,
    ContractError,
    GetInfo,
    GetStats,
    PermissionDenied,
    Ping,
    Router,
    Target,
)
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.runtime.discovery.open_asker import open_asker
from bus.security.private_keys import generate
from bus.testing import MemoryBuses
from bus.testing.explicit_settings import ExplicitSettings
from bus.transports.memory import MemoryTransport
from tests.unit.ledger import GetTotal, Total
from tests.unit.runtime.in_memory import in_memory

SECRET = "s" * 32
GRANTS = """
clients = ["auditor", "mail", "office"]
[services.ledger]
[services.auditor]
control = ["read"]
[services.mail]
[services.office]
call = ["ledger.total"]
[operators.ida]
may = ["control.read"]
[operators.ops]
may = ["dead-letters.reveal"]
"""


@pytest.fixture
def with_keys(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that returns the settings of a process with `BUS_AUTH=on`."""
    public = []
    for name in ("ledger", "auditor", "mail", "office", "ida", "ops"):
        key = {**generate(), "kid": f"{name}-1", "alg": "EdDSA"}
        path = tmp_path / f"{name}.key"
        path.write_text(json.dumps({"keys": [key]}))
        path.chmod(0o600)
        role = {"role": "operator"} if name in {"ida", "ops"} else {}
        public.append({**{k: v for k, v in key.items() if k != "d"}, "iss": name, **role})
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": public}))
    (tmp_path / "grants.toml").write_text(GRANTS)

    def settings(operator: str | None = None, *, grants: bool = True) -> dict[str, Any]:
        return {
            "auth": "on",
            "key": str(tmp_path),
            "jwks": str(tmp_path / "jwks.json"),
            **({"grants": tmp_path / "grants.toml"} if grants else {}),
            **({"operator_key": str(tmp_path / f"{operator}.key")} if operator else {}),
        }

    return settings


@asynccontextmanager
async def three(settings: dict[str, Any]) -> AsyncIterator[tuple[MemoryBuses, dict[str, Bus]]]:
    async with MemoryBuses() as buses:
        names = ("ledger", "auditor", "mail")
        yield buses, {name: await buses.bus(name, **settings) for name in names}


async def test_with_keys_the_grants_decide_which_service_may_ask(
    with_keys: Callable[..., dict[str, Any]],
) -> None:
    async with three(with_keys()) as (_, bus):
        answers = await bus["auditor"].discovery.ask(GetStats(), expected=3)
        assert {each.record.service for each in answers} == {"ledger", "auditor", "mail"}
        with pytest.raises(PermissionDenied, match=r'\[services.mail\] control = \["read"\]'):
            await bus["mail"].discovery.ask(GetStats())


async def test_a_command_asks_with_the_key_of_an_operator(
    with_keys: Callable[..., dict[str, Any]],
) -> None:
    async with three(with_keys()) as (buses, _):
        for grants in (True, False):
            settings = ExplicitSettings(**with_keys("ida", grants=grants))
            async with open_asker(settings, transport=MemoryTransport(buses.broker)) as asker:
                assert len(await asker.ask(GetInfo(), expected=3)) == 3


async def test_an_operator_without_the_right_learns_the_missing_line(
    with_keys: Callable[..., dict[str, Any]],
) -> None:
    async with three(with_keys()) as (buses, _):
        settings = ExplicitSettings(**with_keys("ops"))
        async with open_asker(settings, transport=MemoryTransport(buses.broker)) as asker:
            with pytest.raises(PermissionDenied, match=r'\[operators.ops\] may = \["control.read'):
                await asker.ask(Ping())


async def test_without_the_grants_file_the_instances_refuse_an_operator_without_the_right(
    with_keys: Callable[..., dict[str, Any]],
) -> None:
    async with three(with_keys()) as (buses, bus):
        settings = ExplicitSettings(**with_keys("ops", grants=False))
        async with open_asker(settings, transport=MemoryTransport(buses.broker)) as asker:
            assert await asker.ask(Ping(), window=0.5) == []
        refusals = bus["ledger"].discovery.responder.refusals  # type: ignore[attr-defined]
        assert refusals.counts == {"not granted": 1}


@pytest.mark.parametrize("missing", [("key",), ("jwks",), ("key", "jwks")])
async def test_a_command_without_a_key_is_refused_at_once_and_learns_both_ways(
    with_keys: Callable[..., dict[str, Any]], missing: tuple[str, ...]
) -> None:
    settings = {name: value for name, value in with_keys().items() if name not in missing}
    with pytest.raises(ConfigurationError, match=r"Set BUS_OPERATOR_KEY .* or BUS_KEY"):
        async with open_asker(ExplicitSettings(**settings)):
            pass


async def test_a_command_with_a_services_key_asks_as_this_service(
    with_keys: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    async with three(with_keys()) as (buses, bus):
        for grants in (True, False):
            known = {**with_keys(grants=grants), "key": str(tmp_path / "auditor.key")}
            transport = RecordingTransport(buses.broker)
            async with open_asker(ExplicitSettings(**known), transport=transport) as asker:
                assert len(await asker.ask(GetStats(), expected=3)) == 3
            assert {key.rpartition(".")[0] for key in transport.bound} == {"answer.auditor"}
        assert not bus["ledger"].discovery.responder.refusals.counts  # type: ignore[attr-defined]


async def test_a_command_with_a_services_key_has_only_the_rights_of_this_service(
    with_keys: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    async with three(with_keys()) as (buses, bus):
        settings = ExplicitSettings(**{**with_keys(), "key": str(tmp_path / "mail.key")})
        async with open_asker(settings, transport=MemoryTransport(buses.broker)) as asker:
            with pytest.raises(PermissionDenied, match=r'\[services.mail\] control = \["read"\]'):
                await asker.ask(GetStats())
        settings = ExplicitSettings(
            **{**with_keys(grants=False), "key": str(tmp_path / "mail.key")}
        )
        async with open_asker(settings, transport=MemoryTransport(buses.broker)) as asker:
            assert await asker.ask(GetStats(), Target("ledger"), window=0.5) == []
        refusals = bus["ledger"].discovery.responder.refusals  # type: ignore[attr-defined]
        assert refusals.counts == {"not granted": 1}


async def test_a_service_is_chosen_from_a_directory_of_keys(
    with_keys: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    settings = ExplicitSettings(**with_keys())
    async with three(with_keys()) as (buses, _):
        with pytest.raises(
            ConfigurationError, match=r"auditor, ledger, mail, office\..* --as SERVICE"
        ):
            async with open_asker(settings):
                pass
        transport = MemoryTransport(buses.broker)
        async with open_asker(settings, service="auditor", transport=transport) as asker:
            assert len(await asker.ask(GetStats(), expected=3)) == 3
        for name in ("ledger", "mail", "office"):
            (tmp_path / f"{name}.key").unlink()
        transport = MemoryTransport(buses.broker)
        async with open_asker(settings, transport=transport) as asker:
            assert len(await asker.ask(GetStats(), expected=3)) == 3


async def test_a_chosen_service_is_preferred_to_the_key_of_an_operator(
    with_keys: Callable[..., dict[str, Any]],
) -> None:
    async with three(with_keys()) as (buses, _):
        transport = RecordingTransport(buses.broker)
        settings = ExplicitSettings(**with_keys("ida"))
        async with open_asker(settings, service="auditor", transport=transport) as asker:
            assert len(await asker.ask(Ping(), expected=3)) == 3
        assert {key.rpartition(".")[0] for key in transport.bound} == {"answer.auditor"}


@pytest.mark.parametrize("auth", [{"auth": "off"}, {"auth": "dev", "key": SECRET}])
async def test_without_keys_a_command_asks_as_the_service_that_the_user_chooses(
    auth: dict[str, Any],
) -> None:
    async with three(auth) as (buses, _):
        transport = RecordingTransport(buses.broker)
        async with open_asker(
            ExplicitSettings(**auth), service="office", transport=transport
        ) as asker:
            assert len(await asker.ask(GetStats(), expected=3)) == 3
        assert {key.rpartition(".")[0] for key in transport.bound} == {"answer.office"}


async def test_a_wrong_name_of_a_service_is_refused() -> None:
    with pytest.raises(ContractError, match="service"):
        async with open_asker(ExplicitSettings(auth="off"), service="Not A Name"):
            pass


def test_a_caller_that_may_not_read_waits_without_a_warning_longer_than_its_token_is_valid(
    with_keys: Callable[..., dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    router = Router("ledger")

    @router.request(GetTotal)
    async def total(request: GetTotal) -> Total:
        return Total(total=len(request.account))

    @in_memory
    async def run(buses: MemoryBuses) -> None:
        office, loop = await buses.bus("office", **with_keys()), asyncio.get_running_loop()
        books, began = await buses.bus("ledger", **with_keys()), loop.time()
        waiting = asyncio.create_task(
            office.request(GetTotal(), timeout=1000, wait_for_service=True)
        )
        await asyncio.sleep(700)
        async with books.serving(router):
            assert (await waiting).total == 1
        assert 700 <= loop.time() - began < 701.1, "published again within a second"

    run()
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


class RecordingTransport(MemoryTransport):
    """A transport that records the keys to which the queue of the control channel is bound."""

    bound: tuple[str, ...] = ()

    @override
    async def open_control(self, spec: ConsumerSpec, *functions: Any) -> Any:
        self.bound = tuple(each.routing_key for each in spec.topology.bindings)
        return await super().open_control(spec, *functions)


async def test_with_a_shared_secret_every_process_may_ask() -> None:
    secret = {"auth": "dev", "key": SECRET}
    async with three(secret) as (buses, bus):
        assert len(await bus["mail"].discovery.ask(GetStats(), expected=3)) == 3
        settings = ExplicitSettings(**secret)  # type: ignore[arg-type]
        async with open_asker(settings, transport=MemoryTransport(buses.broker)) as asker:
            (answer,) = await asker.ask(Ping(), Target("ledger"), expected=1)
            assert answer.record.instance == bus["ledger"].instance


async def test_another_shared_secret_gets_no_answer() -> None:
    async with three({"auth": "dev", "key": SECRET}) as (buses, _):
        settings = ExplicitSettings(auth="dev", key=SecretStr("t" * 32))
        async with open_asker(settings, transport=MemoryTransport(buses.broker)) as asker:
            assert await asker.ask(Ping(), window=0.5) == []
