"""Checks of the messages that a caller passes to `request`, `publish` and `submit`."""

from collections.abc import Mapping

from bus.contracts.contract import Kind, Message
from bus.errors import ContractError

__all__ = ["VERBS", "check_message"]

VERBS: Mapping[Kind, str] = {"request": "request", "event": "publish", "job": "submit"}
"""Methods of the bus that send a message, by the kind of the contract."""
NOUNS: Mapping[Kind, str] = {"request": "a Request", "event": "an Event", "job": "a Job"}


def check_message(message: object, kind: Kind) -> None:
    """Check that a caller has passed a message and not its class, or an object of another class.

    Args:
        message: Argument of the caller.
        kind: Kind of message that the called method sends.

    Raises:
        ContractError: The argument is not a message.
    """
    if isinstance(message, Message):
        return
    verb = VERBS[kind]
    if isinstance(message, type) and issubclass(message, Message):
        name = message.__name__
        raise ContractError(
            f"{verb} takes a message, such as {name}(…), not the class {name}. "
            f"Write bus.{verb}({name}(…))."
        )
    given = f"the class {message.__name__}" if isinstance(message, type) else _type_of(message)
    raise ContractError(
        f"{verb} takes {NOUNS[kind]}, not {given}. "
        f"Pass an object of a class with @contract(name, version=…)."
    )


def _type_of(value: object) -> str:
    return "None" if value is None else type(value).__name__
