"""Proofs and encrypted messages that `jose`, a library for Node.js, reads and writes."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bus.messaging.topology.addresses import address_of
from bus.security.private_keys import generate, read_private
from bus.transports.wire_format import AmqpMessage
from tests.polling import until
from tests.security.deployment import Deployment
from tests.security.recorded import (
    KEY,
    MESSAGES_BY_TYPE,
    as_json,
    encrypting,
    record_messages,
    record_refusals,
)
from tests.security.test_buses import on_virtual_time
from tests.security.world import World
from tests.unit.ledger import CloseBooks

SCRIPTS = Path(__file__).parent / "node"
JOSE = "jose@6"
INSTALLING = 45.0
"""Seconds to wait for npm."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with `jose`; skip the test without Node.js, npm or a registry."""
    directory = tmp_path_factory.mktemp("node")
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("Node.js and npm are not installed")
    command = [
        "npm",
        "install",
        "--no-save",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--no-package-lock",
        JOSE,
    ]
    try:
        done = subprocess.run(
            command, cwd=directory, capture_output=True, text=True, timeout=INSTALLING, check=False
        )
    except subprocess.TimeoutExpired:
        pytest.skip("npm did not answer in time")
    if done.returncode != 0:
        pytest.skip(f"npm cannot install {JOSE}: is there a registry?")
    for script in SCRIPTS.glob("*.mjs"):
        shutil.copy(script, directory)
    return directory


def run(
    directory: Path, given: dict[str, Any], script: str = "check.mjs"
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", script],
        cwd=directory,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize("algorithm", ["EdDSA", "ES256"])
async def test_another_languages_library_checks_our_proof_and_makes_one_that_we_take(
    algorithm: Any, node: Path
) -> None:
    world = await World.started()
    secret = {**generate(algorithm), "kid": "office-2", "alg": algorithm}
    (private,) = read_private(json.dumps(secret))
    world.yard.public["office-2"] = {
        **private.public,
        "kid": "office-2",
        "alg": algorithm,
        "iss": "office",
        "not_before": 1_600_000_000,
    }
    world.yard.private["office"] = [private]
    world.rings["office"] = await world.yard.started("office")
    world.rings["ledger"] = await world.yard.started("ledger")
    job = world.job(expires=1_700_086_400_123)
    given = {
        "jwks": json.loads(world.yard.text()),
        "proof": job.proof,
        "token": (world.request().authorization or "").removeprefix("Bearer "),
        "message": {
            name: getattr(job, name)
            for name in ("id", "type", "source", "correlation_id", "reply_to", "expires")
        },
        "body": base64.b64encode(job.body).decode(),
        "now": world.yard.clock(),
        "own": secret,
    }
    done = run(node, given)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["bound"], said["issuer"], said["scope"]) == (True, True, "ledger.add ledger.close")
    gate = world.yard.gate("ledger", world.rings["ledger"], CloseBooks)
    assert gate.authorize(job.replace(proof=said["made"])) is None
    assert gate.authorize(job.replace(proof=said["made"], body=b"{}")) is not None
    broken = run(node, {**given, "proof": f"{(job.proof or '')[:-4]}AAAA"})
    assert broken.returncode != 0


@pytest.fixture(scope="module")
def exchanged(
    node: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Deployment, dict[str, Any], dict[str, Any]]:
    """Return a deployment, a job for Node.js to encrypt, and the output of Node.js."""
    deployment = Deployment(tmp_path_factory.mktemp("deployment"))
    sealed = [wire for wire in record_messages(deployment) if "encryption" in wire.headers]
    now = sealed[-1].timestamp  # the time of the virtual clock
    job = {
        "message_id": "made-by-node",
        "type": "ledger.close.v1",
        "app_id": "office",
        "reply_to": "office.replies.node",
        "headers": {
            "correlation-id": "visit-1",
            "encryption": "jwe",
            "expires": (now + 3600) * 1000,
        },
    }
    given = {
        "now": now,
        "jwks": json.loads(deployment.keys.set_file.read_text()),
        "ring": KEY,
        "own": json.loads(deployment.keys.key_file("office").read_text())["keys"][0],
        "messages": [as_json(wire) for wire in sealed],
        "refusals": [[as_json(wire) for wire in pair] for pair in record_refusals(deployment)],
        "job": {**job, "payload": {"year": 1999}},
    }
    done = run(node, given, "encryption.mjs")
    assert done.returncode == 0, done.stderr
    return deployment, job, json.loads(done.stdout)


def test_another_languages_library_decrypts_every_kind_of_message_that_the_bus_encrypts(
    exchanged: tuple[Deployment, dict[str, Any], dict[str, Any]],
) -> None:
    opened = exchanged[2]["opened"]
    assert opened.keys() == MESSAGES_BY_TYPE.keys()
    assert opened["ledger.add.v1.reply"] == {"total": 5}
    assert opened["ledger.close.v1.progress"]["progress"] == 0.5
    assert opened["ledger.close.v1.reply"] == {"total": 1999}


def test_a_client_in_another_language_hears_refusals_and_drops_those_of_other_messages(
    exchanged: tuple[Deployment, dict[str, Any], dict[str, Any]],
) -> None:
    assert exchanged[2]["heard"] == [
        ["permission_denied", None],
        ["permission_denied", None],
        ["unauthenticated", None],
    ]


def test_the_bus_handles_a_job_that_another_languages_library_encrypted_and_signed(
    exchanged: tuple[Deployment, dict[str, Any], dict[str, Any]],
) -> None:
    deployment, job, made = exchanged
    headers = {**job["headers"], "proof": made["proof"]}
    wire = AmqpMessage(**{**job, "headers": headers, "body": made["body"].encode()})

    async def scene() -> None:
        async with encrypting(deployment) as (buses, ledger, _):
            buses.broker.publish(wire, address_of("job", "ledger.close.v1"))
            await until(lambda: ledger.closed == [1999], "the job to be handled")

    on_virtual_time(scene())
