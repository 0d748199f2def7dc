"""`bus jobs list` and `bus jobs show`, on a store in memory."""

import base64
import json
import os
import re
import time
from typing import Any

import pytest

from bus.cli.jobs import opening
from bus.messaging.jobs.pauses import Pause
from bus.messaging.jobs.states import JOB_STATES
from tests.unit.cli.jobs.shelf import IDS, QUEUE, SECRET, Operator, Shelf


def listed(shelf: Shelf, *arguments: str) -> list[dict[str, Any]]:
    result = shelf.run("list", "--json", *arguments)
    assert result.exit_code == 0, result.stderr
    jobs: list[dict[str, Any]] = json.loads(result.stdout)["jobs"]
    return jobs


def ids(jobs: list[dict[str, Any]]) -> set[str]:
    return {job["id"] for job in jobs}


def test_a_list_has_a_row_for_each_job_with_state_progress_code_and_place(shelf: Shelf) -> None:
    shelf.fill()
    result = shelf.run("list")
    rows = {line.split()[1]: line for line in result.stdout.splitlines()[1:]}
    assert set(rows) == set(IDS.values())
    assert "running" in rows[IDS["running"]]
    assert "25%" in rows[IDS["running"]]
    assert "internal" in rows[IDS["failed"]]
    assert "scan.py:7 in scan" in rows[IDS["failed"]]
    assert "6 jobs" in result.stderr


def test_no_list_has_a_payload_a_note_or_the_text_of_an_error(shelf: Shelf) -> None:
    shelf.fill()
    for arguments in (["list"], ["list", "--json"], ["show", IDS["running"]]):
        result = shelf.run(*arguments)
        assert SECRET not in result.stdout + result.stderr


@pytest.mark.parametrize("state", JOB_STATES)
def test_a_list_is_filtered_by_state(shelf: Shelf, state: str) -> None:
    shelf.fill()
    assert ids(listed(shelf, "--state", state)) == {IDS[state]}


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--type", "shelf.sort.v2"], {"sorted01"}),
        (["--queue", "shelf.jobs.sort.v2"], {"sorted01"}),
        (["--code", "internal"], {IDS["failed"]}),
        (["--code", "internal", "--code", "unavailable"], {IDS["failed"], IDS["retrying"]}),
        (["--submitter", "office"], {"office01"}),
        (["--correlation-id", "c-bbbb0004"], {IDS["succeeded"]}),
        (["--older-than", "1m", "--submitter", "office"], {"office01"}),
        (["--older-than", "1h"], set()),
        (["--newer-than", "1h", "--code", "internal"], {IDS["failed"]}),
        (["--newer-than", "1m"], set()),
    ],
)
def test_a_list_is_filtered(shelf: Shelf, arguments: list[str], found: set[str]) -> None:
    shelf.fill()
    shelf.add("sorted01", type_="shelf.sort.v2", queue="shelf.jobs.sort.v2")
    shelf.add("office01", submitter="office")
    assert ids(listed(shelf, *arguments)) == found


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--state", "quued"], "did you mean 'queued'?"),
        (["--type", "shelf.scan"], "has no version"),
        (["--older-than", "soon"], "is not a duration"),
    ],
)
def test_a_wrong_filter_is_refused(shelf: Shelf, arguments: list[str], problem: str) -> None:
    result = shelf.run("list", *arguments)
    assert result.exit_code == 2
    assert problem in " ".join(result.stderr.replace("│", " ").split())


def test_a_list_with_a_limit_says_that_there_are_more_jobs(shelf: Shelf) -> None:
    shelf.fill()
    result = shelf.run("list", "--limit", "2")
    assert len(result.stdout.splitlines()) == 3
    assert "2 jobs, the newest ones; use --limit to show more" in result.stderr


def test_an_empty_list_says_where_other_messages_are(shelf: Shelf) -> None:
    result = shelf.run("list")
    assert "no jobs." in result.stderr
    assert "a dead letter: `bus dead list`" in result.stderr


def test_without_a_store_the_error_names_the_setting_and_the_dead_letters(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "operator_store", lambda *_: None)
    result = shelf.run("list")
    assert result.exit_code == 78
    text = " ".join(result.stderr.split())
    assert "BUS_STORE is memory, so no store keeps jobs." in text
    assert "run `bus dead list`" in text


# --- show ---


def shown(shelf: Shelf, *arguments: str) -> dict[str, str]:
    result = shelf.run("show", *arguments)
    assert result.exit_code == 0, result.stderr
    lines = [line.split("  ", 1) for line in result.stdout.splitlines()]
    return {line[0].strip(): line[1].strip() for line in lines if len(line) == 2}


def test_a_shown_job_has_its_times_its_worker_and_its_progress(shelf: Shelf) -> None:
    shelf.fill()
    job = shown(shelf, IDS["running"])
    assert (job["state"], job["life"], job["attempt"], job["lost workers"]) == (
        "running",
        "1",
        "1",
        "0",
    )
    assert (job["work queue"], job["submitter"]) == (QUEUE, "desk")
    assert job["worker"].startswith("w1 (lease ends in ")
    assert job["progress"] == "25% (update 4)"
    assert {"submitted", "recorded", "started"} < set(job)


def test_a_shown_job_has_its_last_error_its_earlier_lives_and_its_cancellation(
    shelf: Shelf,
) -> None:
    key = shelf.fail("cccc0005")
    shelf.do(shelf.store.jobs.retry(key, by="ida", reason="the disk was full"))
    shelf.cancel(key)
    job = shown(shelf, "cccc")
    assert job["state"] == "cancelled"
    assert job["cancelled by"].startswith("ida at ")
    assert job["life 2"].endswith(": the disk was full")
    assert (job["life 1 code"], job["life 1 place"]) == ("internal", "scan.py:7 in scan")


def test_an_id_can_be_abbreviated_if_it_names_one_job(shelf: Shelf) -> None:
    shelf.fill()
    assert shown(shelf, "cccc")["id"] == IDS["failed"]
    ambiguous = shelf.run("show", "aaaa")
    assert "'aaaa' is the begin of 2 ids: aaaa0002, aaaa0001" in ambiguous.stderr.replace("\n", " ")
    unknown = shelf.run("show", "ffff")
    assert "job 'ffff' was not found in the store" in unknown.stderr
    assert unknown.exit_code == 66


def test_an_id_of_two_submitters_needs_the_submitter(shelf: Shelf) -> None:
    shelf.add("aaaa0001")
    shelf.add("aaaa0001", submitter="office")
    result = shelf.run("show", "aaaa0001")
    assert "Pass --submitter SERVICE" in " ".join(result.stderr.split())
    assert shown(shelf, "aaaa0001", "--submitter", "office")["submitter"] == "office"


def test_payload_and_result_are_hidden_until_they_are_revealed(shelf: Shelf) -> None:
    shelf.fill()
    hidden = shelf.run("show", IDS["succeeded"])
    assert "hidden; use --reveal to show it" in hidden.stdout
    assert "pages" not in hidden.stdout
    revealed = shelf.run("show", IDS["succeeded"], "--reveal")
    assert SECRET in revealed.stdout
    assert '"pages": 3' in revealed.stdout
    value = json.loads(shelf.run("show", IDS["succeeded"], "--reveal", "--json").stdout)
    assert base64.b64decode(value["result"]) == b'{"pages":3}'
    assert SECRET in base64.b64decode(value["body"]).decode()


def test_the_json_of_a_shown_job_has_no_payload_without_reveal(shelf: Shelf) -> None:
    shelf.fill()
    value = json.loads(shelf.run("show", IDS["failed"], "--json").stdout)
    assert {"body", "result"}.isdisjoint(value)
    assert (value["state"], value["failure"]["code"], value["lives"]) == ("failed", "internal", [])


# --- Rights ---


def test_an_operator_with_the_right_sees_payloads_and_the_audit_log_has_the_name(
    shelf: Shelf, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.fill()
    operator.may("jobs.read")
    assert SECRET in shelf.run("show", IDS["failed"], "--reveal").stdout
    (record,) = [each for each in caplog.records if each.name == "bus.audit"]
    facts = vars(record)
    assert (record.getMessage(), facts["message_id"], facts["operator"]) == (
        "job revealed",
        IDS["failed"],
        "ida",
    )


def test_an_operator_without_the_right_sees_no_payload_and_the_audit_log_says_so(
    shelf: Shelf, operator: Operator, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.fill()
    operator.may("jobs.retry", "dead-letters.reveal")
    result = shelf.run("show", IDS["failed"], "--reveal")
    assert (result.exit_code, SECRET in result.stdout) == (os.EX_NOPERM, False)
    assert "ida may not see payloads and results of jobs." in result.stderr
    assert [each.getMessage() for each in caplog.records] == ["job access denied"]
    assert shelf.run("show", IDS["failed"]).exit_code == 0


def test_a_job_that_waits_for_a_paused_consumer_says_so(shelf: Shelf) -> None:
    shelf.fill()
    now = time.time()
    pause = Pause(queue=QUEUE, by="ida", reason="a new scanner", at=now, until=now + 600)
    shelf.do(shelf.store.pause(pause))
    texts = [shelf.run("show", IDS["queued"]).stdout, shelf.run("list").stderr]
    for text in texts:
        assert re.search(r"paused by +ida at .*, until .*: a new scanner", text)
    assert "paused" not in shelf.run("show", IDS["failed"]).stdout
    assert "paused" not in shelf.run("list", "--state", "failed").stderr
