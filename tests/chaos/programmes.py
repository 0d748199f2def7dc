"""Random programmes of submitters, workers and operators against a job store.

A book follows each job by rules of its own. After each step, the answers and the rows of the store
must agree with the book. A failed programme can be run again by its seed.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import (
    Attempt,
    AttemptEnd,
    CancelRequest,
    JobFailure,
    JobKey,
    JobProgress,
    JobRecord,
    NewJob,
)
from bus.messaging.jobs.states import FINAL_STATES, MOVES, JobState
from bus.messaging.ports.job_store import JobStore
from tests.chaos.job_book import Entry, SetClock

__all__ = ["Programme"]

QUEUE = "library.scan.v1"
LEASE = 30.0
STEPS = 40
MOST_JOBS = 6
DRAIN_ROUNDS = 20
ENDS: Sequence[JobState] = ("succeeded", "failed", "cancelled", "retrying", "queued")


@dataclass
class Programme:
    """One programme."""

    store: JobStore
    clock: SetClock
    seed: int
    book: dict[JobKey, Entry] = field(default_factory=dict)
    attempts: list[Attempt] = field(default_factory=list)
    """Every attempt that a worker got, also stale ones, whose workers still write."""
    seen: dict[JobKey, JobRecord] = field(default_factory=dict)
    trail: list[str] = field(default_factory=list)

    async def run(self) -> None:
        """Run all steps, and then run each job to its end."""
        self.random = random.Random(self.seed)
        steps: Sequence[tuple[Callable[[], Awaitable[None]], int]] = [
            (self.submit, 4),
            (self.claim, 5),
            (self.claim_at_once, 2),
            (self.renew, 3),
            (self.report, 2),
            (self.end, 7),
            (self.repeat, 2),
            (self.stop, 1),
            (self.cancel, 2),
            (self.retry, 3),
            (self.wait, 5),
        ]
        choices, weights = zip(*steps, strict=True)
        for step in self.random.choices(choices, weights, k=STEPS):
            self.trail.append(step.__name__)
            await step()
            await self.compare(is_claim=step.__name__.startswith("claim"))
        await self.drain()

    def check(self, *, condition: object, what: str) -> None:
        assert condition, f"seed {self.seed}: {what}, after {' '.join(self.trail)}"

    def same(self, found: object, expected: object, what: str) -> None:
        self.check(condition=found == expected, what=f"{what}: {found!r}, not {expected!r}")

    async def submit(self) -> None:
        """Record a batch with new jobs, and with copies of known ones."""
        batch, new = [], []
        for _ in range(self.random.randint(1, 3)):
            key = JobKey("reader", f"a{self.random.randrange(MOST_JOBS)}")
            message = Envelope(id=key.id, type=QUEUE, role="job", source="reader")
            priority, delay = self.random.randint(0, 1), self.random.choice([None, 0, 20])
            run_at = None if delay is None else self.clock.now + delay
            batch.append(
                NewJob(key=key, queue=QUEUE, envelope=message, priority=priority, run_at=run_at)
            )
            new.append(key not in self.book)
            self.book.setdefault(
                key, Entry(priority=priority, run_at=self.clock.now + (delay or 0))
            )
        self.same(await self.store.record(batch), new, "recorded")

    def expire(self) -> None:
        for entry in self.book.values():
            if entry.state == "running" and entry.lease_until <= self.clock.now:
                entry.losses += 1
                entry.state = "cancelled" if entry.is_cancelled else "queued"

    def due(self) -> list[Entry]:
        return [
            entry
            for entry in self.book.values()
            if entry.state in {"queued", "retrying"} and entry.run_at <= self.clock.now
        ]

    async def claim(self) -> None:
        await self._claim([self.random.randint(1, 3)])

    async def claim_at_once(self) -> None:
        """Let two workers claim at the same time."""
        await self._claim([2, 2])

    async def _claim(self, limits: Sequence[int]) -> None:
        shares = await asyncio.gather(
            *(
                self.store.claim(QUEUE, worker=f"w{number}", limit=limit, lease=LEASE)
                for number, limit in enumerate(limits)
            )
        )
        self.expire()
        due = self.due()
        claimed = [each for share in shares for each in share]
        keys = [each.attempt_of.key for each in claimed]
        self.same(len({*keys}), len(keys), "a job with two owners")
        if len(limits) == 1:
            self.same(len(keys), min(limits[0], len(due)), "claimed")
            lowest = min((self.book[key].priority for key in keys), default=0)
            left = [entry for entry in due if entry not in [self.book[key] for key in keys]]
            self.check(condition=all(each.priority <= lowest for each in left), what="priority")
        for each in claimed:
            entry = self.book[each.attempt_of.key]
            self.check(condition=any(entry is other for other in due), what="claimed, but not due")
            self.check(condition=each.attempt_of.token > entry.token, what="an old token")
            self.same(each.envelope.attempt, entry.failures + 1, "number of the attempt")
            self.same((each.life, each.losses), (entry.life, entry.losses), "life and losses")
            entry.state, entry.token = "running", each.attempt_of.token
            entry.lease_until = self.clock.now + LEASE
            self.attempts.append(each.attempt_of)

    def is_owner(self, attempt: Attempt) -> bool:
        entry = self.book[attempt.key]
        return entry.state == "running" and entry.token == attempt.token

    def some_attempts(self) -> list[Attempt]:
        """Return attempts of different jobs."""
        count = min(len(self.attempts), self.random.randint(1, 3))
        chosen = self.random.sample(self.attempts, count)
        return [*{attempt.key: attempt for attempt in chosen}.values()]

    async def renew(self) -> None:
        for attempt in self.some_attempts():
            (answer,) = await self.store.renew([attempt], lease=LEASE)
            entry = self.book[attempt.key]
            self.same(bool(answer), self.is_owner(attempt), "renewed")
            if answer:
                self.same(answer is not True, entry.is_cancelled, "told of a cancel request")
                entry.lease_until = self.clock.now + LEASE

    async def report(self) -> None:
        for attempt in self.some_attempts():
            progress = JobProgress(number=self.random.randint(1, 9), update=None, progress=0.5)
            answer = await self.store.report(attempt, progress)
            self.same(answer, self.is_owner(attempt), "stored progress")

    def note_end(self, attempt: Attempt, state: JobState, run_at: float | None) -> JobState | None:
        """Note the end of an attempt, and return the expected answer."""
        entry = self.book[attempt.key]
        if not self.is_owner(attempt):
            is_repeated = entry.last_end is not None and entry.last_end[0] == attempt.token
            return entry.last_end[1] if is_repeated and entry.last_end else None
        if state == "retrying":
            entry.failures += 1
        if entry.is_cancelled and state != "succeeded":
            state = "cancelled"
        elif state in {"retrying", "queued"}:
            if run_at is not None:
                entry.run_at = run_at
            elif state == "retrying":
                entry.run_at = self.clock.now
        entry.state, entry.last_end = state, (attempt.token, state)
        return state

    async def end(self) -> None:
        """End attempts, also stale ones: late completions."""
        ends = []
        for attempt in self.some_attempts():
            state = self.random.choice(ENDS)
            waits = state in {"retrying", "queued"} and self.random.random() < 0.5
            failure = JobFailure(code="internal", reason="KeyError")
            ends.append(
                AttemptEnd(
                    attempt=attempt,
                    state=state,
                    run_at=self.clock.now + 15 if waits else None,
                    failure=failure if state in {"retrying", "failed"} else None,
                )
            )
        expected = [self.note_end(each.attempt, each.state, each.run_at) for each in ends]
        self.same(await self.store.end(ends), expected, "ended")
        self.last_ends = ends

    async def repeat(self) -> None:
        """Write the last ends again, as after a lost answer."""
        ends = getattr(self, "last_ends", [])
        expected = [self.note_end(each.attempt, each.state, each.run_at) for each in ends]
        self.same(await self.store.end(ends), expected, "repeated")

    async def stop(self) -> None:
        """Return every running job, as a worker that stops."""
        ends = [
            AttemptEnd(attempt=attempt, state="queued")
            for attempt in self.attempts
            if self.is_owner(attempt)
        ]
        expected = [self.note_end(each.attempt, "queued", None) for each in ends]
        self.same(await self.store.end(ends), expected, "returned")

    async def cancel(self) -> None:
        key = JobKey("reader", f"a{self.random.randrange(MOST_JOBS)}")
        request = CancelRequest(by="reader", reason="not needed", at=self.clock.now)
        found = await self.store.cancel(key, request)
        entry = self.book.get(key)
        self.same(found is None, entry is None, "found")
        if entry is not None and entry.state not in FINAL_STATES:
            entry.is_cancelled = True
            if entry.state != "running":
                entry.state = "cancelled"

    async def retry(self) -> None:
        key = JobKey("reader", f"a{self.random.randrange(MOST_JOBS)}")
        await self.store.retry(key, by="operator", reason="again")
        entry = self.book.get(key)
        if entry is not None and entry.state == "failed":
            entry.state, entry.life, entry.token = "queued", entry.life + 1, entry.token + 1
            entry.failures = entry.losses = 0
            entry.run_at, entry.is_cancelled = self.clock.now, False

    async def wait(self) -> None:
        self.clock.now += self.random.choice([1, 10, 20, LEASE, 45])

    async def compare(self, *, is_claim: bool = False) -> None:
        """Compare all rows with the book and with the rows before."""
        rows = {row.key: row for row in await self.store.list(limit=MOST_JOBS + 1)}
        self.same(rows.keys(), self.book.keys(), "jobs")
        for key, row in rows.items():
            entry, before = self.book[key], self.seen.get(key)
            self.same(
                (row.state, row.token, row.life, row.losses, row.cancel is not None),
                (entry.state, entry.token, entry.life, entry.losses, entry.is_cancelled),
                f"row {key.id}",
            )
            is_owned = row.worker is not None and row.lease_until is not None
            self.check(
                condition=row.state != "running" or is_owned, what="a running job without an owner"
            )
            self.same(row.ended_at is not None, row.state in FINAL_STATES, "time of the end")
            if before is not None and before.state != row.state:
                between = MOVES[before.state] & {"queued", "running"} if is_claim else ()
                allowed = MOVES[before.state].union(*(MOVES[state] for state in between))
                self.check(
                    condition=row.state in allowed, what=f"moved {before.state} to {row.state}"
                )
        self.seen = rows

    async def drain(self) -> None:
        """Run each job to its end, while all workers of before are lost."""
        self.trail.append("drain")
        for _ in range(DRAIN_ROUNDS):
            self.clock.now += 2 * LEASE
            await self._claim([MOST_JOBS])
            ends = [
                AttemptEnd(attempt=attempt, state="succeeded")
                for attempt in self.attempts
                if self.is_owner(attempt)
            ]
            for each in ends:
                self.note_end(each.attempt, each.state, None)
            await self.store.end(ends)
            await self.compare(is_claim=True)
            if all(entry.state in FINAL_STATES for entry in self.book.values()):
                return
        self.check(condition=False, what="a job is stuck")
