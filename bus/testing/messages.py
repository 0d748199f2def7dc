"""Messages that a test has found, and assertions about them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, overload

from typing_extensions import override

from bus.contracts.contract import Message
from bus.contracts.sensitive import sensitive_fields, shown_values
from bus.messaging.envelope import Envelope
from bus.messaging.failure_location import failure_location
from bus.messaging.fault_record import FaultRecord
from bus.testing.expectations import check_expectation

__all__ = ["DeadMessage", "FoundMessages", "SentMessage", "describe"]

M_co = TypeVar("M_co", bound=Message, covariant=True)


class Found(Protocol[M_co]):
    """A message that a test has found."""

    @property
    def message(self) -> M_co | None:
        """The message, or None if its payload cannot be decoded."""
        ...

    @property
    def note(self) -> str:
        """Text for a failed assertion, after the message."""
        ...

    @property
    def cause(self) -> BaseException | None:
        """The exception of the message's handler."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SentMessage(Generic[M_co]):
    """A message that the code under test has sent."""

    message: M_co
    envelope: Envelope
    """Envelope of the message, with its id, correlation and causation."""
    cause: BaseException | None = None
    """The last exception of the message's handler in this test, or None."""

    @property
    def note(self) -> str:
        """Text for a failed assertion: the exception of the handler."""
        return "" if self.cause is None else f", its handler failed: {describe(self.cause)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadMessage(Generic[M_co]):
    """A dead letter."""

    message: M_co | None
    """The message, or None if its payload does not match the contract."""
    envelope: Envelope
    record: FaultRecord
    """Cause, time and place of the dead letter."""
    queue: str
    """The dead-letter queue."""
    cause: BaseException | None = None
    """The last exception of the message's handler in this test, or None."""

    @property
    def note(self) -> str:
        """Text for a failed assertion: the reason of the dead letter."""
        reason = self.record.reason if self.cause is None else describe(self.cause)
        return f", {self.record.code} after attempt {self.record.attempts}: {reason}"


M = TypeVar("M", bound=Message)
F = TypeVar("F", bound=Found[Message])


class FoundMessages(Sequence[F], Generic[M, F]):
    """The messages that a test has found, in order.

    >>> published(InvoiceSent).one(number="7").envelope.correlation_id
    >>> assert published(InvoiceSent).messages == [InvoiceSent(number="7")]
    """

    def __init__(
        self,
        found: Iterable[F],
        subject: str,
        verb: str,
        *,
        model: type[Message] | None = None,
        failed: Sequence[str] = (),
    ) -> None:
        """Keep messages.

        Args:
            found: The messages.
            subject: Words for such a message in errors, such as `event billing.sent.v1`.
            verb: Word for its discovery in errors, such as `published`.
            model: Class of the messages. None if they have several classes.
            failed: A line for each message whose handler failed in this test.
        """
        self._found = list(found)
        self._subject, self._verb, self._model = subject, verb, model
        self._failed = "".join(f"\n  {line}" for line in failed)

    @property
    def messages(self) -> list[M]:
        """The messages without their envelopes. A payload that cannot be decoded is left out."""
        # `_found` holds only messages of the type `M`, which mypy cannot see.
        return [each.message for each in self._found if each.message is not None]  # type: ignore[misc]

    def one(self, expected: M | None = None, /, **fields: object) -> F:
        """Return the only message that matches. Other messages may exist.

        Args:
            expected: The message that must be equal. None if `fields` describe it.
            **fields: Fields of the message, each with the value that must be equal.

        Raises:
            AssertionError: No message matches, or several do. The text shows the nearest message
                with the fields that differ.
            TypeError: No such message can exist: a field does not exist, or a value has a wrong
                type. Or `expected` has another class.
        """
        __tracebackhide__ = True
        matching = self._select(expected, fields)
        if len(matching) == 1:
            return matching[0]
        wanted = self._wanted(expected, fields)
        if matching:
            lines = _lines(matching)
            raise AssertionError(
                f"{len(matching)} messages match, not one: {wanted}. Give more fields.{lines}"
            )
        if not self._found:
            raise AssertionError(f"no {self._subject} was {self._verb}.{self._failures()}")
        nearest = min(self._found, key=lambda each: len(_differ(each.message, expected, fields)))
        others = [each for each in self._found if each is not nearest]
        rest = f"\nAll others:{_lines(others)}" if others else ""
        with shown_values():
            differ = "".join(f"\n    {line}" for line in _differ(nearest.message, expected, fields))
        raise AssertionError(
            f"no {wanted} was {self._verb}. The nearest message:"
            f"{_lines([nearest])}{differ}{rest}"
            f"{self._failures()}"
        ) from nearest.cause

    def none(self, expected: M | None = None, /, **fields: object) -> None:
        """Check that no message matches. Without arguments, check that no message exists.

        Args:
            expected: The message that must not be equal. None if `fields` describe it.
            **fields: Fields of the message, each with its value.

        Raises:
            AssertionError: A message matches. The text shows each of them.
            TypeError: No such message can exist: a field does not exist, or a value has a wrong
                type. Or `expected` has another class.
        """
        __tracebackhide__ = True
        if matching := self._select(expected, fields):
            raise AssertionError(
                f"expected no {self._wanted(expected, fields)}, but {len(matching)} "
                f"{'was' if len(matching) == 1 else 'were'} {self._verb}:{_lines(matching)}"
            ) from matching[0].cause

    @overload
    def __getitem__(self, index: int) -> F: ...
    @overload
    def __getitem__(self, index: slice) -> list[F]: ...
    @override
    def __getitem__(self, index: int | slice) -> F | list[F]:
        return self._found[index]

    @override
    def __len__(self) -> int:
        return len(self._found)

    @override
    def __iter__(self) -> Iterator[F]:
        return iter(self._found)

    @override
    def __repr__(self) -> str:
        with shown_values():
            return f"<{self._subject}, {self._verb}: {[each.message for each in self._found]}>"

    def _select(self, expected: M | None, fields: dict[str, object]) -> list[F]:
        if self._model is not None:
            check_expectation({self._model}, expected, fields)
        else:  # a dead-letter queue whose messages can have several classes
            models = {type(each.message) for each in self._found if each.message is not None}
            check_expectation(models, None, fields)
        return [each for each in self._found if not _differ(each.message, expected, fields)]

    def _failures(self) -> str:
        return f"\nHandlers that failed in this test:{self._failed}" if self._failed else ""

    def _wanted(self, expected: M | None, fields: dict[str, object]) -> str:
        with shown_values():
            if expected is not None:
                return f"{self._subject} equal to {expected!r}"
            values = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        return f"{self._subject} with {values}" if values else self._subject


def _lines(found: Sequence[Found[Message]]) -> str:
    """Return a line for each message, with its values and its note."""
    with shown_values():
        return "".join(f"\n  {each.message!r}{each.note}" for each in found)


def _differ(
    message: Message | None, expected: Message | None, fields: Mapping[str, object]
) -> list[str]:
    """Return a sentence for each field whose value differs from the expected value."""
    if message is None:
        return ["the payload does not match the contract"]
    if expected is not None and type(expected) is not type(message):
        return [f"its class is {type(message).__name__}, expected {type(expected).__name__}"]
    wanted = {**(_values(expected) if expected is not None else {}), **fields}
    return [line for name, value in wanted.items() for line in _differ_in(message, name, value)]


def _differ_in(message: Message, name: str, expected: object) -> Iterator[str]:
    actual = getattr(message, name)
    if expected == actual:
        return
    if isinstance(expected, Message) and type(expected) is type(actual):
        yield from (f"{name}.{line}" for line in _differ(actual, expected, {}))
    elif name in sensitive_fields(type(message)):
        yield f"{name}: differs; the values are sensitive"
    else:
        yield f"{name}: {actual!r}, expected {expected!r}"


def _values(message: Message) -> dict[str, object]:
    return {name: getattr(message, name) for name in type(message).model_fields}


def describe(error: BaseException) -> str:
    """Return the class and text of an exception, with the place where it was raised."""
    location = failure_location(error)
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return f"{text}{f' at {location}' if location else ''}"
