"""Discovery as the settings specify it: with keys, with a shared secret, and for an operator."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bus import Bus, ConfigurationError, GetInfo, GetStats, PermissionDenied, Ping, Target
from bus.runtime.discovery.open_asker import open_asker
from bus.security.private_keys import generate
from bus.testing import MemoryBuses
from bus.testing.explicit_settings import ExplicitSettings
from bus.transports.memory import MemoryTransport

SECRET = "s" * 32
GRANTS = """
clients = ["auditor", "mail"]
[services.ledger]
[services.auditor]
control = ["read"]
[services.mail]
[operators.ida]
may = ["control.read"]
[operators.ops]
may = ["dead-letters.reveal"]
"""


@pytest.fixture
def with_keys(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Return a function that returns the settings of a process with `BUS_AUTH=on`."""
    public = []
    for name in ("ledger", "auditor", "mail", "ida", "ops"):
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
            assert await asker.ask(Ping(), window=0.05) == []
        refusals = bus["ledger"].discovery.responder.refusals  # type: ignore[attr-defined]
        assert refusals.counts == {"not granted": 1}


async def test_a_command_without_an_operators_key_is_refused_at_once(
    with_keys: Callable[..., dict[str, Any]],
) -> None:
    with pytest.raises(ConfigurationError, match="requires an operator's key"):
        async with open_asker(ExplicitSettings(**with_keys())):
            pass


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
            assert await asker.ask(Ping(), window=0.05) == []
