"""The asker: it sends a question, and collects the answers of a window.

Source: Scatter-Gather in Hohpe and Woolf, "Enterprise Integration Patterns" (2003).
"""

import asyncio
from collections import Counter
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from bus.contracts.limits import check_count, check_seconds
from bus.errors import (
    BusError,
    ConfigurationError,
    PermissionDenied,
    ResourceExhausted,
    UnknownKey,
)
from bus.messaging.control import (
    ALL,
    MAX_WINDOW_SECONDS,
    Answer,
    Question,
    Target,
)
from bus.messaging.envelope import REPLY_SUFFIX, Envelope, new_id
from bus.messaging.resilience.rates import Rates
from bus.messaging.service_info import InstanceState
from bus.messaging.timers import loop_time
from bus.messaging.topology.control import INSTANCE
from bus.runtime.discovery.announcements import AnnouncementStream
from bus.runtime.discovery.asker import Announcements
from bus.runtime.discovery.control_link import ControlLink, Member
from bus.runtime.discovery.limits import Refusals
from bus.runtime.discovery.responder import access_to

__all__ = ["ControlAsker"]

R = TypeVar("R", bound=InstanceState)

READY_SECONDS = 5.0
"""Maximum seconds to wait for the control channel before a question is sent."""
MAX_PENDING_QUESTIONS = 100
"""Maximum number of questions of one process that wait for answers."""
MAX_ANSWERS = 10_000
"""Maximum number of answers to one question."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Maximum bytes of all answers to one question."""
MAX_ANSWERS_OF_SERVICE = 1000
"""Maximum number of answers of one service to one question."""
MAX_BYTES_OF_SERVICE = 32 * 1024 * 1024
"""Maximum bytes of the answers of one service to one question. Others still fit."""
MALFORMED = (
    "a value of the answer is invalid or beyond its limit. Check the version of this service, and "
    "whether another program has its key."
)
TOO_MANY = (
    f"a service can give at most {MAX_ANSWERS_OF_SERVICE} answers to a question, with at most "
    f"{MAX_BYTES_OF_SERVICE // 2**20} MiB. Check whether another program has its key."
)
MAX_CHECKS_PER_SECOND = 2000.0
"""Maximum number of answers per second whose proofs are checked."""
MAX_RECHECKS = 100
"""Maximum number of answers that wait for a read of the public keys."""


class PendingQuestion:
    """A question that was sent, and its answers."""

    def __init__(
        self, question: Question[Any], target: Target, *, began: float, expected: int | None
    ) -> None:
        self.question, self.target, self.began, self.expected = question, target, began, expected
        self.answers: dict[tuple[str, str], Answer[Any]] = {}
        """The answers by service and instance."""
        self.bytes: Counter[str] = Counter()
        """Bytes of the accepted answers by service."""
        self.counts: Counter[str] = Counter()
        """Number of the accepted answers by service."""
        self.is_complete = asyncio.Event()
        self.refusal: BusError | None = None

    def has_room_for(self, service: str, size: int) -> bool:
        """Return True if a service may add an answer of `size` bytes."""
        return (
            self.counts[service] < MAX_ANSWERS_OF_SERVICE
            and self.bytes[service] + size <= MAX_BYTES_OF_SERVICE
        )

    def add(self, record: InstanceState, size: int, seconds: float) -> None:
        """Add the answer of an instance, of `size` bytes. An instance answers once."""
        self.counts[record.service] += 1
        self.bytes[record.service] += size
        self.answers[record.service, record.instance] = Answer(record, seconds)
        if self.expected is not None and len(self.answers) >= self.expected:
            self.is_complete.set()


class ControlAsker:
    """The `Asker` of one process."""

    def __init__(self, member: Member, link: ControlLink) -> None:
        """Create the asker of a process that receives its answers over `link`."""
        self._member, self._link = member, link
        self._pending: dict[str, PendingQuestion] = {}
        self._checks = Rates(
            MAX_CHECKS_PER_SECOND, burst=MAX_CHECKS_PER_SECOND, max_keys=1, timer=loop_time
        )
        self._rechecks: set[asyncio.Task[None]] = set()
        self._streams: list[AnnouncementStream] = []
        link.on_refused.append(self._on_refused)
        self._refusals = Refusals(member.source, timer=loop_time, subject="an answer")

    @property
    def dropped(self) -> Counter[str]:
        """Number of dropped answers by the reason."""
        return self._refusals.counts

    async def ask(
        self,
        question: Question[R],
        target: Target = ALL,
        *,
        window: float = 1.0,
        expected: int | None = None,
    ) -> list[Answer[R]]:
        """Ask live instances, and return the answers of the window; see `Asker.ask`."""
        seconds = check_seconds(window, "window", question.name, longest=MAX_WINDOW_SECONDS)
        if expected is not None:
            check_count(expected, "expected", question.name)
        _check_target(target)
        guard = self._member.guard
        if (error := guard.may_ask(access_to(type(question)), target.service)) is not None:
            raise error
        await self._link.wait_ready(READY_SECONDS)
        if len(self._pending) >= MAX_PENDING_QUESTIONS:
            raise ResourceExhausted(
                f"{question.name}: {MAX_PENDING_QUESTIONS} questions of this process wait for "
                "answers. Wait for them before you ask again."
            )
        envelope = guard.sign_question(self._envelope(question, seconds), target.routing_key)
        pending = PendingQuestion(question, target, began=loop_time(), expected=expected)
        self._pending[envelope.id] = pending
        try:
            with self._link.expecting_answers():
                await self._link.send(envelope, target.routing_key)
                async with asyncio.timeout(seconds):
                    await pending.is_complete.wait()
        except TimeoutError:
            pass  # the usual end of a window
        finally:
            del self._pending[envelope.id]
        if pending.refusal is not None and not pending.answers:
            reason = str(pending.refusal).rstrip(".")
            raise PermissionDenied(
                f"{question.name}: the broker refused the question ({reason}). Import the users of "
                "`bus topology definitions` again, or use another broker user."
            )
        return [cast("Answer[R]", answer) for answer in pending.answers.values()]

    def _envelope(self, question: Question[R], seconds: float) -> Envelope:
        now = self._member.clock()
        return Envelope(
            id=new_id(),
            type=question.name,
            role="control",
            source=self._member.source,
            body=question.model_dump_json().encode(),
            timestamp=int(now),
            expires=int((now + seconds) * 1000),
            expiration=max(1, int(seconds * 1000)),
            reply_to=self._member.answer_key,
        )

    def _on_refused(self, error: BusError) -> None:
        """End the questions that wait, because the broker has closed their channel."""
        for pending in self._pending.values():
            pending.refusal = error
            pending.is_complete.set()

    # --- Answers ---

    def on_answer(self, answer: Envelope) -> None:
        """Check an answer, and add it to its question. The method neither blocks nor raises."""
        pending = self._pending.get(answer.in_reply_to or "")
        if pending is None:
            self.dropped["late"] += 1
        elif answer.type != f"{pending.question.name}{REPLY_SUFFIX}" or answer.fault is not None:
            self.dropped["malformed"] += 1
        elif (
            len(pending.answers) >= MAX_ANSWERS
            or pending.bytes.total() + len(answer.body) > MAX_ANSWER_BYTES
            or not self._checks.take(None)
        ):
            self.dropped["too many"] += 1
        else:
            self._verify(answer, pending)

    def _verify(self, answer: Envelope, pending: PendingQuestion, *, again: bool = False) -> None:
        try:
            self._member.guard.check_answer(answer, self._member.answer_key)
        except UnknownKey:
            if again or len(self._rechecks) >= MAX_RECHECKS:
                self.dropped["not proven"] += 1
                return
            task = asyncio.get_running_loop().create_task(self._recheck(answer, pending))
            self._rechecks.add(task)
            task.add_done_callback(self._rechecks.discard)
        except BusError:
            self.dropped["not proven"] += 1
        else:
            self._accept(answer, pending)

    async def _recheck(self, answer: Envelope, pending: PendingQuestion) -> None:
        """Read the public keys, and check an answer again whose signing key was unknown."""
        await self._member.guard.refresh_keys()
        self._verify(answer, pending, again=True)

    def _accept(self, answer: Envelope, pending: PendingQuestion) -> None:
        try:
            record = pending.question.answer.model_validate_json(answer.body)
        except ValidationError:
            self._refusals.record("malformed", MALFORMED, answer.source)
            return
        target = pending.target
        if (
            record.service != answer.source
            or target.service not in {None, record.service}
            or target.instance not in {None, record.instance}
        ):
            self.dropped["of another instance"] += 1
        elif (record.service, record.instance) in pending.answers:
            self.dropped["duplicate"] += 1
        elif not pending.has_room_for(record.service, len(answer.body)):
            self._refusals.record("too many", TOO_MANY, answer.source)
        else:
            pending.add(record, len(answer.body), loop_time() - pending.began)

    # --- Announcements ---

    def announcements(self) -> Announcements:
        """Return a stream of announcements; see `Asker.announcements`.

        The end of the bus also closes it.
        """
        self._streams = [stream for stream in self._streams if not stream.is_closed]
        stream = AnnouncementStream(self._member)
        self._streams.append(stream)
        return stream

    async def close(self) -> None:
        """End the questions that wait, and the streams of announcements."""
        for pending in self._pending.values():
            pending.is_complete.set()
        for task in self._rechecks:
            task.cancel()
        await asyncio.gather(*self._rechecks, return_exceptions=True)
        for stream in self._streams:
            await stream.aclose()


def _check_target(target: Target) -> None:
    if target.instance is not None and target.service is None:
        raise ConfigurationError("a target with an instance must have a service. Set both.")
    for part, value in (("service", target.service), ("instance", target.instance)):
        if value is not None and not INSTANCE.fullmatch(value):
            raise ConfigurationError(
                f"the {part} of the target has invalid characters. Write the {part}'s name."
            )
