"""The interface with which commands and the bus ask live instances."""

from collections.abc import AsyncIterator, Awaitable
from typing import Protocol, TypeVar

from bus.messaging.control import ALL, Announcement, Answer, Question, Target
from bus.messaging.service_info import InstanceState

__all__ = ["Announcements", "Asker"]

R = TypeVar("R", bound=InstanceState)


class Announcements(Protocol):
    """An iterator of announcements, which has a queue at the broker until it is closed."""

    def __aiter__(self) -> AsyncIterator[Announcement]: ...

    def __anext__(self) -> Awaitable[Announcement]: ...

    def aclose(self) -> Awaitable[None]:
        """Close the stream. Its reader receives no further announcement."""
        ...


class Asker(Protocol):
    """Interface to ask questions on the control channel."""

    async def ask(
        self,
        question: Question[R],
        target: Target = ALL,
        *,
        window: float = 1.0,
        expected: int | None = None,
    ) -> list[Answer[R]]:
        """Ask live instances, and return the answers that arrive within the window.

        Answers that are not verified are dropped. Each instance answers at most once.

        Args:
            question: The question.
            target: The instances that answer.
            window: Seconds to wait for answers, up to `MAX_WINDOW_SECONDS`.
            expected: Number of answers after which the wait ends early. None: wait for the whole
                window.

        Raises:
            Unavailable: Discovery is off, or the broker is not connected.
            PermissionDenied: The asker has no right to ask this question. Or the broker does not
                allow this service's user to publish to the target.
            ConfigurationError: `window` is not a number of seconds up to `MAX_WINDOW_SECONDS`. Or
                `expected` is not a whole number of at least 1. Or the target has a wrong name.
            ResourceExhausted: Too many questions of this process wait for answers.
            FailedPrecondition: No signing key of the asker is valid now.
        """
        ...

    def announcements(self) -> Announcements:
        """Return the verified announcements that arrive from now on, without an end.

        The first one that is awaited can raise `Unavailable` or `PermissionDenied`. Close the
        stream, for example with `contextlib.aclosing`.
        """
        ...
