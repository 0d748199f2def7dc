"""A store in memory with jobs in each state, and the commands of `bus jobs` on it."""

import asyncio
import json
import time
from collections.abc import Coroutine
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from typer.main import get_command
from typer.testing import CliRunner as TyperRunner

from bus.cli import audit, build
from bus.cli.errors import Reporter
from bus.cli.jobs import opening
from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import (
    Attempt,
    AttemptEnd,
    CancelRequest,
    JobFailure,
    JobFilter,
    JobKey,
    JobProgress,
    JobRecord,
    NewJob,
)
from bus.messaging.ports.store import Store
from bus.storage.memory.store import MemoryStore

QUEUE = "shelf.jobs.scan.v1"
SECRET = "the name of a reader"
IDS = {
    "queued": "aaaa0001",
    "running": "aaaa0002",
    "retrying": "bbbb0003",
    "succeeded": "bbbb0004",
    "failed": "cccc0005",
    "cancelled": "dddd0006",
}


def envelope(id_: str, type_: str = "shelf.scan.v1", **values: Any) -> Envelope:
    known: dict[str, Any] = {
        "id": id_,
        "type": type_,
        "role": "job",
        "source": "desk",
        "body": json.dumps({"title": SECRET}).encode(),
        "timestamp": int(time.time()) - 120,
        "correlation_id": f"c-{id_}",
    }
    return Envelope(**known | values)


@cache
def commands() -> Any:
    """Return the commands, which take long to build."""
    return get_command(build(["jobs"], Reporter(debug=False)))


class Shelf:
    """A store with jobs, and the commands that work on it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.opened = 0

    def run(self, *arguments: str, answer: str | None = None) -> Result:
        """Run `bus jobs` with arguments. `answer` is typed at a confirmation."""
        return CliRunner().invoke(commands(), ["jobs", *arguments], input=answer)

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the store."""
        return asyncio.run(work)

    def add(self, id_: str, *, submitter: str = "desk", **values: Any) -> JobKey:
        """Record a job."""
        key = JobKey(submitter, id_)
        queue = values.pop("queue", QUEUE)
        new = NewJob(key=key, queue=queue, envelope=envelope(id_, **values))
        self.do(self.store.jobs.record([new]))
        return key

    def claim(self, key: JobKey) -> Attempt:
        """Claim the only job that is due."""
        (claimed,) = self.do(self.store.jobs.claim(QUEUE, worker="w1", limit=1, lease=30))
        assert claimed.attempt_of.key == key
        attempt: Attempt = claimed.attempt_of
        return attempt

    def end(self, attempt: Attempt, state: Any, **values: Any) -> None:
        """End an attempt."""
        self.do(self.store.jobs.end([AttemptEnd(attempt=attempt, state=state, **values)]))

    def fail(self, id_: str, code: str = "internal") -> JobKey:
        """Add a failed job."""
        key = self.add(id_)
        failure = JobFailure(
            code=code, reason=f"ValueError: {SECRET}", location="scan.py:7 in scan"
        )
        self.end(self.claim(key), "failed", failure=failure, result=envelope(id_, body=b'{"e":1}'))
        return key

    def fill(self) -> None:
        """Add one job in each state."""
        self.fail(IDS["failed"])
        key = self.add(IDS["succeeded"])
        self.end(self.claim(key), "succeeded", result=envelope(key.id, body=b'{"pages":3}'))
        key = self.add(IDS["retrying"])
        failure = JobFailure(code="unavailable", reason="r", location="scan.py:9 in scan")
        self.end(self.claim(key), "retrying", run_at=time.time() + 600, failure=failure)
        key = self.add(IDS["cancelled"])
        self.cancel(key)
        key = self.add(IDS["running"])
        attempt = self.claim(key)
        update = envelope(key.id, body=json.dumps({"note": SECRET}).encode())
        progress = JobProgress(number=4, update=update, progress=0.25)
        self.do(self.store.jobs.report(attempt, progress))
        self.add(IDS["queued"])

    def cancel(self, key: JobKey) -> None:
        """Cancel a job as another operator."""
        request = CancelRequest(by="ida", reason="typed twice", at=time.time())
        self.do(self.store.jobs.cancel(key, request))

    def job(self, id_: str) -> JobRecord:
        """Return a job."""
        (listed,) = self.do(self.store.jobs.list(JobFilter(ids=(id_,))))
        found: JobRecord = self.do(self.store.jobs.find(listed.key))
        return found

    def states(self) -> dict[str, str]:
        """Return the state of each job."""
        return {each.key.id: each.state for each in self.do(self.store.jobs.list(limit=1000))}


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """An empty store on which the commands work."""
    made = Shelf()

    def configured(*_: object) -> Store:
        made.opened += 1
        return made.store

    monkeypatch.setattr(opening, "operator_store", configured)
    for module in (audit, opening):  # it would change all loggers
        monkeypatch.setattr(module, "begin_audit", lambda _: None)
    monkeypatch.setenv("BUS_AUTH", "off")
    monkeypatch.setenv("COLUMNS", "250")
    return made


class Operator:
    """The operator `ida` with a key, whose rights a test chooses."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = folder / "keys"
        arguments = ["keys", "new", "ida", "--operator", "--directory", str(keys)]
        made = TyperRunner().invoke(build(["keys"], Reporter(debug=False)), arguments)
        assert made.exit_code == 0, made.output
        self.grants = folder / "grants.toml"
        self.may()
        (key,) = keys.glob("ida*")
        (key_set,) = keys.glob("*jwks*")
        for name, value in (
            ("AUTH", "on"),
            ("OPERATOR_KEY", key),
            ("JWKS", key_set),
            ("GRANTS", self.grants),
        ):
            monkeypatch.setenv(f"BUS_{name}", str(value))

    def may(self, *rights: str) -> None:
        """Give these rights to the operator, and no other ones."""
        self.grants.write_text(f"[operators.ida]\nmay = {json.dumps(list(rights))}\n")
        self.grants.chmod(0o600)


@pytest.fixture
def operator(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    """Let the commands run as an operator without any right."""
    return Operator(tmp_path, monkeypatch)
