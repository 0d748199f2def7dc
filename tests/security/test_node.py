"""Proofs that `jose`, a JWT library for Node.js, verifies, and proofs that it creates."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bus.security.private_keys import generate, read_private
from tests.npm import install
from tests.security.world import World
from tests.unit.ledger import CloseBooks

SCRIPT = Path(__file__).parent / "node" / "check.mjs"
JOSE = "jose@6"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with `jose`; skip the test without Node.js, npm or a registry."""
    directory = tmp_path_factory.mktemp("node")
    install(directory, JOSE)
    shutil.copy(SCRIPT, directory / SCRIPT.name)
    return directory


def run(directory: Path, given: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["node", SCRIPT.name],
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
