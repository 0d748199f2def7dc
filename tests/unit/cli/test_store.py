"""`bus store`, on SQLite."""

import json
import sqlite3
from pathlib import Path

import pytest

from bus.cli import main
from bus.security.jwe import new_encryption_key


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a store, which does not exist yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BUS_AUTH", "off")
    monkeypatch.setenv("BUS_STORE", f"sqlite:///{tmp_path / 'jobs.db'}")
    return tmp_path / "jobs.db"


def run(*arguments: str) -> int:
    """Run `bus store`, and return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(["store", *arguments])
    return int(ended.value.code or 0)


def test_an_upgrade_creates_the_file_and_a_second_one_changes_nothing(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("upgrade", "--dry-run") == 0
    assert capsys.readouterr().err == f"sqlite:///{path}: would be created with revision 0001\n"
    assert not path.exists()
    assert run("upgrade", "--service", "shelf") == 0
    assert f"sqlite:///{path}: created with revision 0001, service shelf, id " in (
        capsys.readouterr().err
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert run("upgrade") == 0
    assert "nothing to do (revision 0001, service shelf)" in capsys.readouterr().err


def test_an_upgrade_of_the_store_of_another_service_is_refused(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("upgrade", "--service", "shelf") == 0
    assert run("upgrade", "--service", "desk") == 78
    assert "belongs to the service 'shelf', not to 'desk'" in capsys.readouterr().err


def test_a_check_shows_the_store_and_its_problems_with_the_command(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check") == 78
    assert "does not exist. Run `bus store upgrade` to create it" in capsys.readouterr().out
    run("upgrade", "--service", "shelf")
    assert run("check") == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["store"] == f"sqlite:///{path}"
    assert (lines["service"], lines["revision"], lines["jobs"]) == ("shelf", "0001", "none")
    assert lines["problems"] == "none"
    path.chmod(0o644)
    assert run("check", "--json") == 78
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem.endswith(f"run `chmod o= {path}`.")


def test_a_check_counts_the_jobs_and_shows_how_long_the_oldest_one_has_waited(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("upgrade")
    connection = sqlite3.connect(path)
    columns = "id, submitter, type, queue, state, life, attempt, losses, token, priority,"
    columns += "correlation_id, submitted_at, recorded_at, run_at, progress_number,"
    columns += "has_progress, is_pruned"
    for number, state in enumerate(("queued", "queued", "failed")):
        values = f"'{number}', 's', 't.v1', 'q', '{state}', 1, 0, 0, 0, 0, 'c',"
        values += "1, 1, unixepoch() - 7200, 0, 0, 0"
        connection.execute(f"INSERT INTO bus_jobs ({columns}) VALUES ({values})")
    connection.commit()
    connection.close()
    assert run("check") == 0
    out = capsys.readouterr().out
    assert "1 failed, 2 queued" in out
    assert "waiting    for 2h" in out


def test_a_pruning_reports_the_removed_data(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("upgrade")
    assert run("prune", "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "payloads": 0,
        "jobs": 0,
        "inbox": 0,
        "dry_run": True,
    }
    assert run("prune") == 0
    assert "0 payloads, 0 jobs and 0 handled messages removed" in capsys.readouterr().err


def test_a_new_encryption_needs_the_keys(
    path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run("upgrade")
    assert run("reencrypt") == 78
    assert "BUS_ENCRYPTION_KEYS is not set" in capsys.readouterr().err
    monkeypatch.setenv("BUS_ENCRYPTION_KEYS", json.dumps({"keys": [new_encryption_key("ring-1")]}))
    assert run("reencrypt", "--dry-run") == 0
    assert "no stored message is encrypted" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["upgrade", "check", "prune"])
def test_without_a_store_each_command_says_what_to_set(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.setenv("BUS_STORE", "memory")
    assert run(command) == 78
    assert "BUS_STORE is memory, so the service has no durable store. Set it to" in (
        capsys.readouterr().err
    )


def test_a_store_for_each_service_needs_the_name_of_the_service(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.setenv("BUS_STORE", f"sqlite:///{path.parent}/{{service}}.db")
    assert run("upgrade") == 78
    assert "so each service has a store of its own. Pass --service." in capsys.readouterr().err
    assert run("upgrade", "--service", "shelf") == 0
    assert (path.parent / "shelf.db").exists()
