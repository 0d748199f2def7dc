"""The responder: it checks the questions of other processes, and answers them.

The order of the checks keeps a flood cheap. A limit for all senders comes before the signature,
because the name of the asker is not proven before.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from pydantic import ValidationError

from bus.errors import BusError, PermissionDenied, UnknownKey
from bus.messaging.control import MAX_WINDOW_SECONDS, QUESTIONS, Ping, Question
from bus.messaging.envelope import REPLY_SUFFIX, Envelope, new_id
from bus.messaging.failure_location import failure_facts
from bus.messaging.orders import ORDERS, Order, OrderResult
from bus.messaging.resilience.rates import Rates
from bus.messaging.service_info import InstanceState
from bus.messaging.timers import loop_time
from bus.messaging.topology.control import question_key
from bus.runtime.discovery.answers import AnswerBodies, encode_record
from bus.runtime.discovery.control_link import ControlLink, Member
from bus.runtime.discovery.limits import FLOOD, Refusals, SeenIds
from bus.runtime.discovery.throttle import MAX_QUESTION_BYTES
from bus.security.control_proofs import ROUNDING_SECONDS, ProvenAsker
from bus.security.control_security import Access

__all__ = ["MAX_QUESTIONS_PER_SECOND", "Execute", "Responder", "access_to"]

log = logging.getLogger("bus.discovery")

MAX_QUESTIONS_PER_SECOND = 10.0
"""Maximum number of questions per second of one asker that an instance answers."""
MAX_CHECKS_PER_SECOND = 200.0
"""Maximum number of proofs without a known key that an instance checks per second."""
MAX_KEY_CHECKS_PER_SECOND = 20.0
"""Maximum number of proofs per second that an instance checks for one known key and its owner.

A sender can claim a known key. So it can use up the checks of this key, but not those of others.
"""
MAX_KEYS = 10_000
MAX_ASKERS = 1000
"""Maximum number of askers for which an instance keeps a rate."""
MAX_SEEN_QUESTIONS = 10_000
MAX_ANSWERS_IN_PROGRESS = 16
"""Maximum number of answers that are built and sent at the same time."""

Execute = Callable[[Order, str], Awaitable[OrderResult]]
"""Function that obeys an order of the named operator, and returns the answer."""


def access_to(question: type[Question[InstanceState]]) -> Access:
    """Return the kind of access that a question needs."""
    return "ping" if question is Ping else question.right


class Responder:
    """Answers the questions that arrive at one process."""

    def __init__(
        self,
        member: Member,
        link: ControlLink,
        bodies: AnswerBodies,
        execute: Execute | None = None,
    ) -> None:
        """Create the responder of a process that answers over `link`, and obeys by `execute`."""
        self._execute = execute
        self._started, self._replays_end = 0.0, 0.0
        self._member, self._link, self._bodies = member, link, bodies
        timer = loop_time
        service = member.source
        self._targets = frozenset(
            (question_key(), question_key(service), question_key(service, member.instance))
        )
        self._checks = Rates(
            MAX_CHECKS_PER_SECOND, burst=MAX_CHECKS_PER_SECOND, max_keys=1, timer=timer
        )
        self._key_checks = Rates(
            MAX_KEY_CHECKS_PER_SECOND,
            burst=MAX_KEY_CHECKS_PER_SECOND,
            max_keys=MAX_KEYS,
            timer=timer,
        )
        self._rates = Rates(
            MAX_QUESTIONS_PER_SECOND,
            burst=MAX_QUESTIONS_PER_SECOND,
            max_keys=MAX_ASKERS,
            timer=timer,
        )
        self._seen = SeenIds(MAX_SEEN_QUESTIONS, clock=member.clock)
        self._answering: set[asyncio.Task[None]] = set()
        self.refusals = Refusals(service, timer=timer)
        """The questions that were refused."""
        self.answered = 0
        """Number of answers that were sent."""

    def start(self) -> None:
        """Record the start of the process, before its first question can arrive."""
        leeway = self._member.leeway
        self._started = self._member.clock()
        """An order that was signed earlier was not for this process."""
        self._replays_end = loop_time() + MAX_WINDOW_SECONDS + 2 * leeway
        """Time at which all orders from before the start have expired, by the event loop's clock.

        If the clock was fast at the start and is then set back, new orders look older than the
        start. The clocks of the signer and of this process can each be wrong by the leeway.
        """

    def on_question(self, question: Envelope) -> None:
        """Check a question, and start to answer it. The method neither blocks nor raises."""
        kind = QUESTIONS.get(question.type) or ORDERS.get(question.type)
        if kind is None:
            return  # an asker of a later version
        if not self._may_check(question):
            return
        if question.fault is not None:
            size, limit = question.unread_bytes, MAX_QUESTION_BYTES
            too_large = f"the question has {size} bytes, the limit is {limit} bytes"
            self.refusals.record("malformed", question.fault if size is None else too_large)
            return
        asker = self._admit(question, access_to(kind))
        if asker is None or not self._is_due(question, asker):
            return
        try:
            parsed = kind.model_validate_json(question.body)
        except ValidationError:
            detail = f"{question.type}: the body is not valid"
            self.refusals.record("malformed", detail, asker.proven_name)
            return
        self._start(question, parsed, asker)

    def _may_check(self, question: Envelope) -> bool:
        """Return True if the proof of a question may be checked now.

        Each known key has checks of its own, so that a flood without a key cannot use them up.
        """
        key = self._member.guard.claimed_key(question)
        if self._checks.take(None) if key is None else self._key_checks.take(key):
            return True
        limit = f"more than {MAX_CHECKS_PER_SECOND:g} questions per second have no known key"
        if key is not None:
            limit = (
                f"more than {MAX_KEY_CHECKS_PER_SECOND:g} questions per second name a key of "
                f"{question.source}"
            )
        self.refusals.record(FLOOD, f"{limit}. Genuine questions can be lost meanwhile")
        return False

    def _admit(self, question: Envelope, access: Access) -> ProvenAsker | None:
        try:
            return self._member.guard.admit(question, self._targets, access)
        except PermissionDenied as error:  # raised only after the proof was verified
            self.refusals.record("not granted", str(error), question.source)
        except UnknownKey as error:
            self._member.guard.refresh_keys_soon()
            self.refusals.record("unknown key", str(error))
        except BusError as error:
            self.refusals.record("not proven", str(error))
        return None

    def _is_due(self, question: Envelope, asker: ProvenAsker) -> bool:
        """Return True unless the question is a replay, is too late, or one of too many."""
        now, key = self._member.clock(), (asker.role, asker.name, question.id)
        ends = now + self._member.leeway + MAX_WINDOW_SECONDS  # of an asker with a fast clock
        if question.expires is not None:
            ends = min(ends, question.expires / 1000)
        if ends + self._member.leeway <= now:
            self.refusals.record("out of window", "the window is over")
        elif self._is_older(question, asker):
            # The ids that an earlier process of this service has seen are lost.
            self.refusals.record("replayed", "the order was signed before this process started")
        elif key in self._seen:
            # The sender of a replay is not the asker.
            self.refusals.record("replayed", "the question was asked before")
        elif not self._rates.take((asker.role, asker.name)):
            limit = f"more than {MAX_QUESTIONS_PER_SECOND:g} questions per second. Ask less often"
            self.refusals.record("too many", limit, asker.proven_name)
        elif not self._seen.add(key, ends + self._member.leeway):
            detail = "too many questions of all askers"
            self.refusals.record("too many", detail, asker.proven_name)
        else:
            return True
        return False

    def _is_older(self, question: Envelope, asker: ProvenAsker) -> bool:
        """Return True if the message is an order that was signed before this process started."""
        signed = asker.issued
        return (
            question.type in ORDERS
            and signed is not None
            and signed + ROUNDING_SECONDS < self._started
            and loop_time() < self._replays_end
        )

    def _start(
        self, question: Envelope, parsed: Question[InstanceState], asker: ProvenAsker
    ) -> None:
        if len(self._answering) >= MAX_ANSWERS_IN_PROGRESS:
            self.refusals.counts["busy"] += 1
            return
        task = asyncio.get_running_loop().create_task(self._answer(question, parsed, asker))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(
        self, question: Envelope, parsed: Question[InstanceState], asker: ProvenAsker
    ) -> None:
        try:
            answer = build_answer(self._member, question, await self._body_of(parsed, asker))
            await self._link.send(answer, question.reply_to or "")
        except BusError as error:
            log.debug("an answer could not be sent: %s", error, extra={"why": str(error)})
        except Exception as error:  # noqa: BLE001 - a bug in a report must not end the responder
            facts = failure_facts(error)
            log.error("%s could not be answered", question.type, extra=facts)  # noqa: TRY400 - a traceback can show values
        else:
            self.answered += 1

    async def _body_of(self, parsed: Question[InstanceState], asker: ProvenAsker) -> bytes:
        if not isinstance(parsed, Order) or self._execute is None:
            return self._bodies.body_of(parsed)
        name = asker.proven_name or parsed.operator or asker.name
        return encode_record(await self._execute(parsed, name), self._member.max_body_bytes)

    async def close(self) -> None:
        """Cancel the answers in progress."""
        for task in self._answering:
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)


def build_answer(member: Member, question: Envelope, body: bytes) -> Envelope:
    """Return the signed answer to a question."""
    now = member.clock()
    answer = Envelope(
        id=new_id(),
        type=f"{question.type}{REPLY_SUFFIX}",
        role="control",
        source=member.source,
        body=body,
        timestamp=int(now),
        expires=int((now + MAX_WINDOW_SECONDS) * 1000),
        expiration=int(MAX_WINDOW_SECONDS * 1000),
        in_reply_to=question.id,
    )
    return member.guard.sign_answer(answer, question.reply_to or "")
