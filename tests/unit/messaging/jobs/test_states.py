"""The table of allowed moves between the states of a durable job."""

from bus.messaging.jobs.states import FINAL_STATES, JOB_STATES, MOVES, sources_of


def test_the_table_names_every_state() -> None:
    assert set(MOVES) == set(JOB_STATES)


def test_succeeded_and_cancelled_are_never_left() -> None:
    assert {state for state in FINAL_STATES if not MOVES[state]} == {"succeeded", "cancelled"}


def test_a_failed_job_can_only_begin_another_life() -> None:
    assert MOVES["failed"] == {"queued"}


def test_a_job_can_be_cancelled_until_it_has_ended() -> None:
    assert sources_of("cancelled") == ("queued", "running", "retrying")


def test_only_a_running_job_succeeds() -> None:
    assert sources_of("succeeded") == ("running",)
