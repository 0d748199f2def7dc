"""The receiver of replies: it verifies each reply, and passes it to the call or job that waits."""

import asyncio
import logging

from bus.errors import BusError, FailedPrecondition, Unauthenticated, UnknownKey
from bus.messaging.body_limit import unread_reply
from bus.messaging.envelope import Envelope
from bus.messaging.labels import message_facts, message_label, one_line
from bus.messaging.ports.transport import ConsumerHandle, Delivery
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.declarations import reply_topology
from bus.messaging.topology.names import service_of
from bus.runtime.pending_replies import PendingReplies
from bus.runtime.service_runtime import ServiceRuntime

__all__ = ["ReplyReceiver"]

log = logging.getLogger("bus.client")

TOO_MANY_CHECKS = (
    "the signing key is not in the receiver's BUS_JWKS, and too many replies with unknown keys "
    "wait for the next read of it"
)
MAX_CHECKS, MAX_CHECKED_BYTES = 100, 16 * 1024 * 1024
"""Maximum number of replies that wait for a read of the public keys, and of bytes in their bodies.

Any client of the broker can send replies with an unknown key, and a slow read can take seconds.
"""


class ReplyReceiver:
    """The consumer of one process's reply queue."""

    def __init__(self, runtime: ServiceRuntime, replies: PendingReplies) -> None:
        """Create a receiver that is not started.

        Args:
            runtime: The objects that all parts of this process share.
            replies: The calls and jobs that wait for replies.
        """
        self._service = runtime.service
        self._instance = runtime.instance
        self._transport = runtime.transport
        self._max_body_bytes = runtime.settings.max_message
        self._security = runtime.security
        self._verifier = runtime.security.identity.verifier
        self._replies = replies
        self._checks: dict[asyncio.Task[None], int] = {}
        """The tasks that check replies again, each with the number of bytes in the body."""
        self.consumer: ConsumerHandle | None = None
        """The consumer of the reply queue. None before the start."""

    async def start(self) -> ConsumerHandle:
        """Start to receive replies, and return the consumer of the reply queue."""
        topology = reply_topology(self._service, self._instance)
        spec = ConsumerSpec(
            queue=topology.queues[0],
            topology=topology,
            prefetch=0,
            acks=False,
            max_body_bytes=self._max_body_bytes,
        )
        is_anonymous = self._security.identity.is_anonymous
        on_delivery = self._on_unsigned_reply if is_anonymous else self._on_reply
        self.consumer = await self._transport.consume(spec, on_delivery)
        return self.consumer

    def _on_unsigned_reply(self, delivery: Delivery) -> None:
        self._dispatch(delivery.envelope)

    def _on_reply(self, delivery: Delivery) -> None:
        envelope = delivery.envelope
        error = self._verify_reply(envelope)
        if error is None:
            self._dispatch(envelope)
        elif isinstance(error, UnknownKey):
            self._recheck_soon(envelope)
        else:
            self._reject_reply(envelope, error)

    def _dispatch(self, reply: Envelope) -> None:
        """Decrypt a reply, and pass it to the call or job that waits for it."""
        if reply.unread_bytes is not None:
            self._replies.dispatch(unread_reply(reply))
            return
        try:
            reply = self._security.cipher.decrypt(reply)
        except BusError as error:
            log.warning(
                "%s could not be decrypted: %s",
                message_label(reply),
                one_line(str(error)),
                extra=message_facts(reply, why=str(error)),
            )
            self._replies.record_rejected_reply(reply, str(error))
        else:
            self._replies.dispatch(reply)

    def _verify_reply(self, reply: Envelope) -> BusError | None:
        """Return the reason why a reply is invalid, or None if it is valid.

        A reply without a pending call or job is not verified, because it is dropped as late.
        """
        request = self._replies.find_request(reply)
        if request is None:
            return None
        return self._verifier.check_reply(
            reply, service_of(request.type), is_job=request.is_job, proofs=request.proofs
        )

    def _reject_reply(self, reply: Envelope, error: BusError) -> None:
        # The proof signs a digest of the body, so it cannot be checked if the body was dropped.
        if reply.unread_bytes is not None and reply.proof is not None:
            error = FailedPrecondition(reply.fault or "")
        self._verifier.record_rejection(reply, error)
        self._replies.record_rejected_reply(reply, str(error))

    def _recheck_soon(self, reply: Envelope) -> None:
        """Start a task that checks a reply again, unless too many replies wait for that.

        A single reply can be larger than `MAX_CHECKED_BYTES`.
        """
        size = len(reply.body)
        if self._checks and (
            len(self._checks) >= MAX_CHECKS or sum(self._checks.values()) + size > MAX_CHECKED_BYTES
        ):
            self._reject_reply(reply, Unauthenticated(TOO_MANY_CHECKS))
            return
        check = asyncio.get_running_loop().create_task(self._recheck_reply(reply))
        self._checks[check] = size
        check.add_done_callback(self._checks.pop)

    async def _recheck_reply(self, reply: Envelope) -> None:
        """Fetch the public keys, and then verify a reply again whose signing key was unknown."""
        await self._verifier.refresh_keys()
        error = self._verify_reply(reply)
        if error is None:
            self._dispatch(reply)
        else:
            self._reject_reply(reply, error)
