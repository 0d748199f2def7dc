import asyncio
import logging
from collections.abc import Callable

import pytest

from bus.contracts.retry_policy import RetryPolicy
from bus.errors import (
    ContractViolation,
    DeadlineExceeded,
    Expired,
    Internal,
    NotFound,
    Unavailable,
    safe_reason,
)
from bus.messaging.backoff import backoff
from bus.messaging.settlement import (
    Ack,
    MoveToDeadLetters,
    Retry,
    Settlement,
    decide,
    delay_after,
    distinct_delays,
)
from bus.messaging.supervision import STABLE_AFTER_SECONDS, is_own_cancel, run_forever
from tests.unit.fakes import virtual

SECRET = "Eleonora Quist"
POLICY = RetryPolicy(attempts=3, permanent=(LookupError,))


@pytest.mark.parametrize(
    ("error", "attempt", "settlement"),
    [
        (None, 1, Ack()),
        (None, 9, Ack()),
        (ValueError(SECRET), 1, Retry(delay=1)),
        (ValueError(SECRET), 2, Retry(delay=5)),
        (ValueError(SECRET), 3, MoveToDeadLetters(code="internal", reason="ValueError")),
        (ValueError(SECRET), 4, MoveToDeadLetters(code="internal", reason="ValueError")),
        (KeyError(SECRET), 1, MoveToDeadLetters(code="internal", reason="KeyError")),
        (Unavailable("later"), 1, Retry(delay=1)),
        (DeadlineExceeded("slow"), 1, Retry(delay=1)),
        (Internal("broken"), 1, Retry(delay=1)),
        (
            NotFound("no such note"),
            1,
            MoveToDeadLetters(code="not_found", reason="NotFound: no such note"),
        ),
        (
            ContractViolation("x"),
            1,
            MoveToDeadLetters(code="invalid_argument", reason="ContractViolation: x"),
        ),
        (Expired("old"), 1, MoveToDeadLetters(code="deadline_exceeded", reason="Expired: old")),
    ],
)
def test_what_becomes_of_a_message(
    error: Exception | None, attempt: int, settlement: Settlement
) -> None:
    assert decide(error, attempt, POLICY) == settlement


def group(*members: Exception) -> ExceptionGroup[Exception]:
    return ExceptionGroup(SECRET, members)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (group(NotFound("no such note")), "not_found", "NotFound: no such note"),
        (group(group(group(NotFound("a")))), "not_found", "NotFound: a"),
        (group(KeyError(SECRET)), "internal", "KeyError"),
        (
            group(NotFound("a"), group(NotFound("b"))),
            "not_found",
            "ExceptionGroup of 2 errors: NotFound: a; NotFound: b",
        ),
        (
            group(NotFound("a"), ContractViolation("b"), KeyError(SECRET), *[NotFound("c")] * 9),
            "internal",
            "ExceptionGroup of 12 errors: NotFound: a; ContractViolation: b; KeyError; and 9 more",
        ),
    ],
)
def test_a_group_of_which_all_errors_are_permanent_is_dead_lettered_at_once(
    error: Exception, code: str, reason: str
) -> None:
    assert decide(error, 1, POLICY) == MoveToDeadLetters(code=code, reason=reason)


@pytest.mark.parametrize(
    "error",
    [
        group(ValueError(SECRET)),
        group(NotFound("a"), ValueError(SECRET)),
        group(NotFound("a"), group(KeyError(SECRET), Unavailable("later"))),
        BaseExceptionGroup(SECRET, [NotFound("a"), GeneratorExit()]),
    ],
    ids=repr,
)
def test_a_group_with_an_error_that_may_pass_is_retried(error: BaseException) -> None:
    assert decide(error, 1, POLICY) == Retry(delay=1)


def test_a_class_of_groups_can_itself_be_permanent() -> None:
    policy = RetryPolicy(permanent=(ExceptionGroup,))
    assert isinstance(decide(group(ValueError(SECRET)), 1, policy), MoveToDeadLetters)
    nested = BaseExceptionGroup(SECRET, [group(ValueError(SECRET)), GeneratorExit()])
    assert decide(nested, 1, policy) == Retry(delay=1)


def test_a_deeply_nested_group_is_decided_like_its_error() -> None:
    error: Exception = NotFound("a")
    for _ in range(5_000):
        error = group(error)
    expected = MoveToDeadLetters(code="not_found", reason="NotFound: a")
    assert decide(error, 1, POLICY) == expected


@pytest.mark.parametrize(
    ("lasted", "settlement"),
    [
        (0, Retry(delay=5)),
        (5, Retry(delay=5)),
        (5.1, MoveToDeadLetters(code="unavailable", reason="Unavailable: x")),
    ],
)
def test_no_attempt_begins_after_the_total_time(lasted: float, settlement: Settlement) -> None:
    policy = RetryPolicy(attempts=100, total_time=10)
    assert decide(Unavailable("x"), 2, policy, lasted=lasted) == settlement


def test_a_foreign_text_is_no_reason() -> None:
    assert safe_reason(ValueError(SECRET)) == "ValueError"
    assert safe_reason(Internal(SECRET)) == "Internal"


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (RetryPolicy(), (1, 5, 25, 125)),
        (RetryPolicy(attempts=1), ()),
        (RetryPolicy(attempts=4, first_delay=0), (0,)),
        (RetryPolicy(attempts=4, first_delay=2, factor=10, longest_delay=30), (2, 20, 30)),
        (RetryPolicy(attempts=3, factor=1), (1,)),
        (RetryPolicy(delays=(5, 5, 600)), (5, 600)),
        (RetryPolicy(attempts=1_000_000), (1, 5, 25, 125, 625, 3125, 3600)),
    ],
)
def test_the_different_waits_of_a_policy(policy: RetryPolicy, delays: tuple[float, ...]) -> None:
    assert distinct_delays(policy) == delays


def test_a_million_attempts_overflow_nothing() -> None:
    assert delay_after(1_000_000, RetryPolicy(attempts=1_000_000)) == 3600
    assert backoff(1_000_000) <= 1


def test_the_backoff_is_jittered_and_never_longer_than_a_second() -> None:
    waits = [backoff(attempt) for attempt in range(1, 200)]
    assert all(0 <= wait <= 1 for wait in waits)
    assert len(set(waits)) > 150
    assert all(backoff(1) <= 0.1 for _ in range(50))


class Steps:
    """Step that raises the next error of a script, each time after `lasting` seconds."""

    def __init__(self, *ends: BaseException | None, lasting: float = 0) -> None:
        self._ends = list(ends)
        self._lasting = lasting
        self.began: list[float] = []
        self.reported: list[BaseException] = []
        self.all_ended = asyncio.Event()

    async def __call__(self) -> None:
        self.began.append(asyncio.get_running_loop().time())
        if not self._ends:
            self.all_ended.set()
            await asyncio.Event().wait()
        await asyncio.sleep(self._lasting)
        end = self._ends.pop(0)
        if end is not None:
            raise end

    async def run(self) -> None:
        task = asyncio.create_task(
            run_forever(self, expected=(OSError,), on_error=self.reported.append)
        )
        await self.all_ended.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@virtual
async def test_a_step_is_run_again_whatever_ended_it(caplog: pytest.LogCaptureFixture) -> None:
    ends = [None, OSError("gone"), ValueError(SECRET), Exception(), asyncio.CancelledError()]
    steps = Steps(*ends)
    await steps.run()
    assert len(steps.began) == 6
    assert steps.reported == ends[1:]
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.ERROR]
    assert SECRET not in caplog.text


@virtual
async def test_the_wait_grows_with_failures_and_starts_anew_after_a_stable_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures: list[int] = []
    monkeypatch.setattr("bus.messaging.supervision.backoff", _noting(failures))
    await Steps(*[OSError()] * 4).run()
    assert failures == [1, 2, 3, 4]
    failures.clear()
    await Steps(*[OSError()] * 3, lasting=STABLE_AFTER_SECONDS + 1).run()
    assert failures == [1, 1, 1]


def _noting(failures: list[int]) -> Callable[[int], float]:
    def wait(attempt: int) -> float:
        failures.append(attempt)
        return 0.1

    return wait


@virtual
async def test_a_cancellation_is_own_only_where_this_task_was_cancelled() -> None:
    assert not is_own_cancel()
    seen: list[bool] = []

    async def cancelled() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append(is_own_cancel())

    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    task.cancel()
    await task
    assert seen == [True]
