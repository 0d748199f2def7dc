"""Tests of the right to see payloads of dead letters.

An operator needs a key and a grant.
"""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from bus import Settings
from bus.cli.dead.queues import connected
from bus.messaging.ports.transport import Transport
from tests.integration.command import Ended, bus
from tests.integration.test_dead_letters import SECRET, TOPOLOGY, WORK, audit_of, bury
from tests.security.deployment import GRANTS, Deployment

pytestmark = pytest.mark.timeout(180)

REVEAL = '[operators.ida]\nmay = ["dead-letters.reveal"]\n'


class Desk:
    """A shell with an operator's settings, on a broker with one dead letter."""

    def __init__(self, url: str, deployment: Deployment) -> None:
        self.deployment = deployment
        self.environment = {
            "BUS_URL": url,
            "BUS_AUTH": "on",
            "BUS_JWKS": str(deployment.keys.set_file),
            "BUS_GRANTS": str(deployment.grants),
            "BUS_OPERATOR_KEY": str(deployment.keys.key_file("ida")),
        }

    def grant(self, text: str) -> None:
        self.deployment.grants.write_text(GRANTS + text)

    async def dead(self, *arguments: str, **others: str) -> Ended:
        return await bus("dead", *arguments, "--queue", WORK, **{**self.environment, **others})

    async def shows(self, **others: str) -> Ended:
        return await self.dead("show", "m-1", "--reveal", **others)


@pytest.fixture
async def transport(vhost_url: str) -> AsyncIterator[Transport]:
    async with connected(Settings(url=SecretStr(vhost_url))) as transport:
        await transport.declare(TOPOLOGY)
        await bury(transport, "m-1")
        yield transport


@pytest.fixture
def desk(transport: Transport, vhost_url: str, tmp_path: Path) -> Desk:
    """Create the shell, with the dead letter in its queue."""
    return Desk(vhost_url, Deployment(tmp_path))


async def test_an_operator_who_was_granted_it_sees_payloads_and_that_is_noted_with_his_name(
    desk: Desk, tmp_path: Path
) -> None:
    desk.grant(REVEAL)
    shown = await desk.shows()
    assert (shown.code, SECRET in shown.out, SECRET in shown.err) == (0, True, False)
    (line,) = audit_of(shown)
    assert (line["event"], line["message_id"], line["operator"]) == (
        "payload revealed",
        "m-1",
        "ida",
    )
    exported = await desk.dead("export", str(tmp_path / "letters.jsonl"), "--reveal")
    assert (exported.code, len((tmp_path / "letters.jsonl").read_text().splitlines())) == (0, 1)
    assert [each["operator"] for each in audit_of(exported)] == ["ida"]


async def test_an_operator_who_was_not_sees_none_and_that_is_noted_too(
    desk: Desk, tmp_path: Path
) -> None:
    desk.grant("[operators.ida]\nmay = []\n")
    refused = await desk.shows()
    assert (refused.code, SECRET in refused.out + refused.err, refused.out) == (
        os.EX_NOPERM,
        False,
        "",
    )
    told = (
        f"ida may not see payloads of dead letters. Grant it in {desk.deployment.grants}:"
        ' [operators.ida] may = ["dead-letters.reveal"]'
    )
    assert f"error: {told}" in refused.err
    (line,) = audit_of(refused)
    assert (line["event"], line["why"]) == ("payload access denied", told)
    file = tmp_path / "letters.jsonl"
    assert (await desk.dead("export", str(file), "--reveal")).code == os.EX_NOPERM
    assert not file.exists()


async def test_without_an_operators_key_nobody_sees_a_payload(desk: Desk) -> None:
    """Check that a service's key does not reveal payloads, even if the grants list its name.

    Dead letters with hidden payloads need no key.
    """
    desk.grant(REVEAL + '[operators.office]\nmay = ["dead-letters.reveal"]\n')
    for key in ("", str(desk.deployment.keys.key_file("office"))):
        refused = await desk.shows(BUS_OPERATOR_KEY=key)
        assert (refused.code, SECRET in refused.out + refused.err) == (os.EX_CONFIG, False), (
            refused.err
        )
        assert "operator" in refused.err
    hidden = await desk.dead("show", "m-1", "--json", BUS_OPERATOR_KEY="")
    assert (hidden.code, json.loads(hidden.out)["id"], SECRET in hidden.out) == (0, "m-1", False)


async def test_in_development_who_has_the_secret_sees_payloads(desk: Desk) -> None:
    shown = await desk.shows(
        BUS_AUTH="dev", BUS_KEY="a secret that all services of this test share"
    )
    assert (shown.code, SECRET in shown.out) == (0, True)
    assert [each["operator"] for each in audit_of(shown)] == ["dev"]
    assert (await desk.shows(BUS_AUTH="dev")).code == os.EX_CONFIG
