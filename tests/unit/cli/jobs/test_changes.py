"""`bus jobs cancel`, `retry` and `watch`, on a store in memory."""

import asyncio
import io
import json
import os
import time
from typing import Any

import pytest

from bus.cli.jobs import watching
from bus.cli.jobs.watching import JobBars, follow
from bus.cli.output import EscapingConsole
from bus.messaging.jobs.records import (
    ANY_JOB,
    AttemptEnd,
    JobFilter,
    JobKey,
    JobProgress,
    NewJob,
)
from tests.unit.cli.jobs.shelf import IDS, SECRET, Operator, Shelf, envelope

REASON = ("--reason", "typed twice")


def test_a_waiting_job_is_cancelled_and_a_running_one_is_asked_to_end(shelf: Shelf) -> None:
    shelf.fill()
    result = shelf.run("cancel", "--type", "shelf.scan.v1", "--yes", *REASON)
    assert result.exit_code == 0
    assert "cancelled 2 jobs" in result.stderr
    assert "requested the cancellation of 1 running job" in result.stderr
    states = shelf.states()
    assert [states[IDS[name]] for name in ("queued", "retrying", "running")] == [
        "cancelled",
        "cancelled",
        "running",
    ]
    asked = shelf.job(IDS["running"]).cancel
    assert asked is not None
    assert asked.reason == "typed twice"
    assert [states[IDS[name]] for name in ("succeeded", "failed")] == ["succeeded", "failed"]


def test_a_job_that_has_ended_says_so_when_it_is_cancelled(shelf: Shelf) -> None:
    shelf.fill()
    result = shelf.run("cancel", IDS["succeeded"], *REASON)
    assert result.exit_code == 0
    assert result.stderr == f"job {IDS['succeeded']} has ended before: succeeded\n"


@pytest.mark.parametrize(
    ("answer", "states"), [("n\n", {"queued"}), ("y\n", {"cancelled"}), ("", {"queued"})]
)
def test_a_change_by_filter_asks_with_the_number_of_jobs(
    shelf: Shelf, answer: str, states: set[str]
) -> None:
    for number in range(12):
        shelf.add(f"aaaa{number:04}")
    result = shelf.run("cancel", "--all", *REASON, answer=answer)
    assert "shelf.scan.v1: 12 queued" in result.stderr
    assert "Cancel 12 jobs?" in result.stderr
    assert set(shelf.states().values()) == states


def test_an_id_needs_no_confirmation_and_changes_no_job_that_only_begins_so(shelf: Shelf) -> None:
    for id_ in ("aaaa", "aaaa0001"):
        shelf.add(id_)
    assert shelf.run("cancel", "aaaa", *REASON).exit_code == 0
    assert shelf.states() == {"aaaa": "cancelled", "aaaa0001": "queued"}


@pytest.mark.parametrize("verb", ["cancel", "retry", "show"])
def test_an_id_of_several_services_needs_the_submitter(shelf: Shelf, verb: str) -> None:
    submitters = ("desk", "spy")
    for submitter in submitters:
        shelf.end(shelf.claim(shelf.add("aaaa0001", submitter=submitter)), "failed")
    for submitter in submitters:
        shelf.add("aaaa0002", submitter=submitter)
    number = "2" if verb == "cancel" else "1"
    reason = () if verb == "show" else REASON
    arguments = (verb, f"aaaa000{number}", *reason)
    # `--limit 1` must not hide the second job.
    for more in ((), () if verb == "show" else ("--limit", "1", "aaaa0001")):
        refused = shelf.run(*arguments, *more)
        assert refused.exit_code == os.EX_DATAERR
        assert "use this id. Pass --submitter SERVICE" in " ".join(refused.stderr.split())
    assert shelf.run(*arguments, "--submitter", "desk").exit_code == 0
    states = {each.key: each.state for each in shelf.do(shelf.store.jobs.list(limit=9))}
    assert states[JobKey("spy", "aaaa0001")] == "failed"
    assert states[JobKey("spy", "aaaa0002")] == "queued"
    changed = {"cancel": "cancelled", "retry": "queued", "show": "failed"}[verb]
    assert states[JobKey("desk", f"aaaa000{number}")] == changed


@pytest.mark.parametrize("verb", ["cancel", "show"])
def test_a_whole_id_is_found_although_many_newer_ids_begin_with_it(shelf: Shelf, verb: str) -> None:
    shelf.add("aaaa0001", timestamp=int(time.time()) - 999)
    new = [_new(f"aaaa0001{number:04}") for number in range(1_100)]
    shelf.do(shelf.store.jobs.record(new))
    result = shelf.run(verb, "aaaa0001", *(() if verb == "show" else REASON))
    assert result.exit_code == 0, result.stderr
    others = JobFilter(states=("cancelled",))
    assert len(shelf.do(shelf.store.jobs.list(others))) == (verb == "cancel")


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_dry_run_counts_the_jobs_and_changes_none(shelf: Shelf, verb: str) -> None:
    shelf.fill()
    before = shelf.states()
    result = shelf.run(verb, "--all", "--dry-run", *REASON)
    assert f"would {verb} {'3 jobs' if verb == 'cancel' else '1 job'}" in result.stderr
    assert shelf.states() == before
    value = json.loads(shelf.run(verb, "--all", "--dry-run", "--json", *REASON).stdout)
    assert (value["selected"], value["dry_run"]) == (3 if verb == "cancel" else 1, True)


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_change_without_a_selection_or_a_reason_is_refused(shelf: Shelf, verb: str) -> None:
    for arguments, problem in ((REASON, "no jobs are selected"), (("--all",), "--reason")):
        result = shelf.run(verb, *arguments)
        assert result.exit_code == 2
        assert problem in result.stderr


def test_a_limit_bounds_a_change_and_says_that_more_jobs_match(shelf: Shelf) -> None:
    for number in range(5):
        shelf.add(f"aaaa{number:04}")
    result = shelf.run("cancel", "--all", "--yes", "--limit", "2", *REASON)
    assert "cancelled 2 jobs" in result.stderr
    assert "more jobs match" in result.stderr


# --- retry ---


def test_a_retried_job_begins_its_next_life_with_operator_and_reason(shelf: Shelf) -> None:
    shelf.fill()
    result = shelf.run("retry", IDS["failed"], "--reason", "the disk is larger")
    assert "began the next life of 1 job" in result.stderr
    job = shelf.job(IDS["failed"])
    assert (job.state, job.life, job.attempt) == ("queued", 2, 0)
    (life,) = job.lives
    assert (life.reason, "@" in life.by) == ("the disk is larger", True)


def test_jobs_are_retried_by_the_code_of_their_error(shelf: Shelf) -> None:
    shelf.fail("aaaa0001", "internal")
    shelf.fail("aaaa0002", "unavailable")
    shelf.run("retry", "--code", "unavailable", "--yes", *REASON)
    assert shelf.states() == {"aaaa0001": "failed", "aaaa0002": "queued"}


def test_a_job_without_its_payload_is_not_retried_and_the_error_says_why(shelf: Shelf) -> None:
    key = shelf.fail("aaaa0001")
    now = time.time()
    shelf.do(shelf.store.jobs.prune("failed", ended_before=now + 1, limit=10, now=now))
    result = shelf.run("retry", key.id, *REASON)
    assert result.exit_code == 78
    assert "the retention of the payload is over" in " ".join(result.stderr.split())
    assert shelf.run("show", key.id).stdout.count("removed, because its retention is over") == 2


# --- Rights and the audit log ---


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_a_change_needs_its_right_and_is_recorded_with_operator_and_reason(
    shelf: Shelf, operator: Operator, caplog: pytest.LogCaptureFixture, verb: str
) -> None:
    shelf.fill()
    operator.may("jobs.read", "jobs.retry" if verb == "cancel" else "jobs.cancel")
    refused = shelf.run(verb, "--all", "--yes", *REASON)
    assert refused.exit_code == os.EX_NOPERM
    assert f'[operators.ida] may = ["jobs.{verb}"]' in " ".join(refused.stderr.split())
    operator.may(f"jobs.{verb}")
    assert shelf.run(verb, "--all", "--yes", *REASON).exit_code == 0
    denied, done = [each for each in caplog.records if each.name == "bus.audit"]
    assert denied.getMessage().endswith("denied")
    facts = vars(done)
    assert (done.getMessage(), facts["operator"], facts["reason"]) == (
        f"jobs {verb}",
        "ida",
        "typed twice",
    )
    if verb == "cancel":
        asked = shelf.job(IDS["running"]).cancel
        assert asked is not None
        assert asked.by == "ida"
    else:
        assert shelf.job(IDS["failed"]).lives[0].by == "ida"
    assert SECRET not in caplog.text


# --- watch ---


def test_a_watch_ends_when_all_jobs_have_ended_and_prints_one_line_for_each(
    shelf: Shelf,
) -> None:
    shelf.fill()
    result = shelf.run("watch", IDS["succeeded"], IDS["failed"])
    assert set(result.stdout.splitlines()) == {
        f"{IDS['succeeded']} shelf.scan.v1 succeeded",
        f"{IDS['failed']} shelf.scan.v1 failed (internal)",
    }
    assert (result.stderr, result.exit_code) == ("", 1)
    assert shelf.run("watch", IDS["succeeded"]).exit_code == 0


def test_a_watch_without_a_job_says_so(shelf: Shelf) -> None:
    result = shelf.run("watch")
    assert (result.exit_code, result.stderr) == (0, "no matching job waits or runs\n")


async def test_a_watch_follows_a_job_from_its_start_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf, written = Shelf(), io.StringIO()
    await shelf.store.jobs.record([_new("aaaa0001")])

    def console(**_: Any) -> EscapingConsole:
        return EscapingConsole(file=written, width=120, force_terminal=True)

    monkeypatch.setattr(watching, "EscapingConsole", console)
    following = asyncio.create_task(follow(shelf.store, JobFilter(ids=("aaaa",)), 0.001))
    (claimed,) = await shelf.store.jobs.claim("shelf.jobs.scan.v1", worker="w1", limit=1, lease=30)
    update = JobProgress(number=1, update=envelope("aaaa0001"), progress=0.5)
    await shelf.store.jobs.report(claimed.attempt_of, update)
    await asyncio.sleep(0.02)
    assert not following.done()
    await _end(shelf, claimed.attempt_of)
    (job,) = await following
    assert job.state == "succeeded"
    assert "100%" in written.getvalue()


def test_the_bars_show_the_progress_the_state_and_the_sum(shelf: Shelf) -> None:
    shelf.fill()
    jobs = shelf.do(shelf.store.jobs.list(ANY_JOB))
    written = io.StringIO()
    console = EscapingConsole(file=written, width=120, force_terminal=True, color_system=None)
    with JobBars(jobs, console):
        pass
    text = written.getvalue()
    assert "6 jobs" in text
    assert "1 queued, 1 running, 1 retrying, 1 succeeded, 1 failed, 1 cancelled" in text
    assert "25% running" in text
    assert "failed (internal)" in text
    assert SECRET not in text


def _new(id_: str) -> Any:
    return NewJob(key=JobKey("desk", id_), queue="shelf.jobs.scan.v1", envelope=envelope(id_))


async def _end(shelf: Shelf, attempt: Any) -> None:
    await shelf.store.jobs.end([AttemptEnd(attempt=attempt, state="succeeded")])
