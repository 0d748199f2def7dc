"""Checks of the arguments that a caller passes to `request`, `publish` and `submit`."""

from collections.abc import Mapping

from bus.contracts.contract import Contract, Kind, Message, contract_of, require_resolved
from bus.contracts.limits import check_seconds, describe
from bus.errors import ConfigurationError, ContractError

__all__ = [
    "check_call",
    "check_message",
    "check_publisher",
    "check_wait",
    "require_kind",
    "seconds_of",
]

VERBS: Mapping[Kind, str] = {"request": "request", "event": "publish", "job": "submit"}
"""Methods of the bus that send a message, by the kind of the contract."""
NOUNS: Mapping[Kind, str] = {"request": "a Request", "event": "an Event", "job": "a Job"}


def check_call(service: str, message: Message, kind: Kind, timeout: float | None) -> None:
    """Check the arguments of a call, without a connection.

    Args:
        service: Name of the sender.
        message: Message to send.
        kind: Kind of message that the called method sends.
        timeout: Seconds until the call ends, or None.

    Raises:
        ConfigurationError: `timeout` is not a finite number of seconds from 0.
        ContractError: The message cannot be sent by this method, or not by this service.
    """
    contract = require_kind(message, kind)
    if kind == "event":
        check_publisher(contract, service)
    seconds_of(timeout, 0, contract)


def require_kind(message: Message, kind: Kind) -> Contract:
    """Return the contract of a message.

    Args:
        message: Message to send.
        kind: Kind of message that the called method sends.

    Raises:
        ContractError: The message has no contract, or a contract of another kind.
    """
    try:
        contract = contract_of(type(message))
    except ContractError:
        check_message(message, kind)  # it has a better text for an object that is not a message
        raise
    if contract.kind != kind:
        raise ContractError(
            f"{contract.type} is a contract of kind {contract.kind}, not {kind}. "
            f"Send it with bus.{VERBS[contract.kind]}(…)."
        )
    require_resolved(contract)
    return contract


def check_publisher(contract: Contract, service: str) -> None:
    """Check that an event belongs to the service that publishes it.

    Args:
        contract: Contract of the event.
        service: Name of the sender.

    Raises:
        ContractError: The event belongs to another service.
    """
    if contract.service != service:
        raise ContractError(
            f"{contract.type} belongs to {contract.service}, so {service} cannot publish it. "
            f"Publish it from {contract.service}."
        )


def seconds_of(timeout: float | None, default: float, contract: Contract) -> float:
    """Return the timeout of a call, or the default if the caller gives none.

    Args:
        timeout: Seconds until the call ends, or None.
        default: Seconds without a timeout of the caller.
        contract: Contract of the message, for the error message.

    Raises:
        ConfigurationError: `timeout` is not a finite number of seconds from 0.
    """
    if timeout is None:
        return default
    return check_seconds(timeout, "timeout", contract.type, shortest=0)


def check_wait(value: object, contract: Contract) -> None:
    """Check the argument `wait_for_service` of a request.

    Raises:
        ConfigurationError: The argument is not a boolean. A number could be meant as seconds.
    """
    if not isinstance(value, bool):
        raise ConfigurationError(
            f"{contract.type}: wait_for_service must be True or False, not {describe(value)}. "
            "Write wait_for_service=True, and the seconds as timeout=."
        )


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
