"""The control channel with `BUS_AUTH=off`: nothing is signed, and everybody may ask and order."""

from bus.errors import PermissionDenied, Unauthenticated
from bus.messaging.envelope import Envelope
from bus.messaging.topology.control import is_answer_key_of
from bus.security.control_proofs import ProvenAsker
from bus.security.control_security import Access

__all__ = ["OPEN_CONTROL", "OpenControl"]


class OpenControl:
    """The `ControlGuard` of `BUS_AUTH=off`: nothing is signed, and everybody may ask."""

    def sign_question(self, question: Envelope, target: str) -> Envelope:  # noqa: ARG002 - as in `ControlGuard`
        """Return the question unchanged."""
        return question

    sign_answer = sign_announcement = sign_question

    def admit(
        self,
        question: Envelope,
        targets: frozenset[str],  # noqa: ARG002 - as in `ControlGuard`
        access: Access,  # noqa: ARG002 - as above
    ) -> ProvenAsker:
        """Return the asker that the question names. Check only the address of the answers."""
        if not is_answer_key_of(question.source, question.reply_to or ""):
            raise Unauthenticated("reply_to is not an address for answers to the asker")
        return ProvenAsker(question.source, "service", is_shared=True)

    def claimed_key(self, question: Envelope) -> None:
        """Return None: there are no keys."""

    def check_answer(self, answer: Envelope, address: str) -> None:
        """Accept the answer."""

    check_announcement = check_answer

    def may_ask(self, access: Access, service: str | None) -> PermissionDenied | None:  # noqa: ARG002 - as in `ControlGuard`
        """Return None: everybody may ask."""
        return None

    async def refresh_keys(self) -> None:
        """Do nothing: there are no keys."""

    def refresh_keys_soon(self) -> None:
        """Do nothing: there are no keys."""


OPEN_CONTROL = OpenControl()
