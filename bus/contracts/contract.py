"""Contracts: the messages between services, as versioned pydantic models.

A contract's type on the wire is `<name>.v<version>`. The first part of the name is the owning
service. Only that service answers the request, runs the job or publishes the event.

`@contract` is a decorator, because mypy and pyright check the arguments of a decorator. They cannot
check keyword arguments of a class, because pydantic's metaclass accepts even a misspelt keyword.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Generic, Literal, Protocol, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from bus.contracts.contract_options import (
    check_cache,
    check_catalog,
    check_class,
    check_options,
)
from bus.contracts.criticality import Criticality
from bus.contracts.names import check_name, check_part, check_permission
from bus.contracts.payload import decode, encode
from bus.contracts.reply_type import find_reply_type, resolve_reply
from bus.contracts.retry_policy import RetryPolicy
from bus.contracts.sensitive import shown_fields
from bus.errors import ContractError

__all__ = [
    "CATALOG",
    "Catalog",
    "Contract",
    "Event",
    "Job",
    "Kind",
    "Message",
    "Request",
    "check_part",
    "contract",
    "contract_of",
    "decode",
    "encode",
    "require_resolved",
]

Kind = Literal["request", "event", "job"]
"""Kind of a contract."""


class Message(BaseModel):
    """Base class of all messages that are sent as JSON, including replies and results.

    A message is frozen. Unknown fields are ignored, because a newer sender may add fields.

    The repr names the fields and hides their values, because reprs appear in logs and tracebacks.
    Inside a `bus.testing.shown_values` block the repr shows the values.

    >>> class Invoice(Message):
    ...     number: int
    ...     total: Decimal
    """

    # hide_input_in_errors=True: an error message must never show confidential data.
    # allow_inf_nan=False: JSON cannot express infinity and NaN.
    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False
    )

    @override
    def __repr_args__(self) -> Iterable[tuple[str | None, object]]:
        """Return the fields that `repr` and `str` show; pydantic calls this method."""
        return shown_fields(self)


DEFAULT_RETRY = RetryPolicy()
R = TypeVar("R", bound=Message | None)
M = TypeVar("M", bound=type[Message])
Q_co = TypeVar("Q_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


class Request(Message, Generic[R]):
    """Message that the owning service answers with a reply of type `R`, while the caller waits.

    The reply to a `Request[None]` has no content. The reply to a `Request[Invoice | None]` is an
    `Invoice` or None.

    >>> @contract("billing.get-invoice", version=1, idempotent=True)
    ... class GetInvoice(Request[Invoice]):
    ...     number: int
    """

    @classmethod
    def __asks__(cls) -> tuple[type[Self], type[R]]:
        """Return the class and its reply type. A type checker infers them from this method."""
        return cls, cast("type[R]", contract_of(cls).reply)


class Job(Message, Generic[R]):
    """Message that one worker of the owning service handles later. The result has type `R`.

    A job waits in a durable queue. It survives a restart of the broker or of a service. The
    handler's `RetryPolicy` controls how failed attempts are retried. `Job[None]` has no result.

    >>> @contract("billing.close-month", version=1)
    ... class CloseMonth(Job[Summary]):
    ...     month: date
    """

    @classmethod
    def __orders__(cls) -> tuple[type[Self], type[R]]:
        """Return the class and its result type. A type checker infers them from this method."""
        return cls, cast("type[R]", contract_of(cls).reply)


class Event(Message):
    """Message about a fact. The owning service publishes it to zero or more subscribers.

    >>> @contract("billing.invoice-paid", version=1)
    ... class InvoicePaid(Event):
    ...     number: int
    """


class RequestClass(Protocol[Q_co, R_co]):
    """Protocol of a request class, from which a type checker infers the type of the reply."""

    def __asks__(self) -> tuple[type[Q_co], type[R_co]]: ...


class JobClass(Protocol[Q_co, R_co]):
    """Protocol of a job class, from which a type checker infers the type of the result."""

    def __orders__(self) -> tuple[type[Q_co], type[R_co]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """Attributes that `@contract` declares for a message class."""

    name: str
    """Name of the contract, `<service>.<operation>` in lower case. Dots separate the parts."""
    version: int
    """Version of the contract, from 1 to 9999."""
    kind: Kind
    model: type[Message]
    """The decorated class."""
    reply: type[Message] | None
    """Type of the reply or result. None for a `Request[None]`, a `Job[None]` or an event."""
    is_reply_optional: bool = False
    """True if the reply or result can also be None, as in `Request[Invoice | None]`."""
    permission: str
    """Name of the right to send a request or job, or to publish or consume an event."""
    idempotent: bool = False
    """True if handling a message twice has the same effect as handling it once.

    If it is False, the bus never repeats a request that may have been handled.
    """
    retry: RetryPolicy = DEFAULT_RETRY
    """Retry policy of an event or job, for handlers that do not set a policy themselves."""
    encrypted: bool = False
    """True if the bus encrypts the message, its reply, its result and its progress."""
    criticality: Criticality = "critical"
    """Importance of the message, compared with others of this contract in an overload."""
    cache: float | None = None
    """Seconds for which a client keeps a reply, and answers equal requests with it. None: never."""

    type: str = field(init=False)
    """Type on the wire, `<name>.v<version>`. It is also the routing key."""
    service: str = field(init=False)
    """Owning service, the first part of the name."""

    def __post_init__(self) -> None:
        """Derive the type and the service once, because every message needs them."""
        object.__setattr__(self, "type", f"{self.name}.v{self.version}")
        object.__setattr__(self, "service", self.name.partition(".")[0])

    @property
    def operation(self) -> str:
        """Name of the contract without its service."""
        return self.name.partition(".")[2]


class Catalog:
    """Registry of this process's contracts. The key is the type on the wire."""

    def __init__(self) -> None:
        self._by_type: dict[str, Contract] = {}

    def add(self, contract: Contract) -> None:
        """Add a contract, or replace the contract of the same class.

        Args:
            contract: Contract to add.

        Raises:
            ContractError: Another class has the same type on the wire. The error message names the
                two classes.
        """
        existing = self._by_type.get(contract.type)
        if existing is not None and _path_of(existing.model) != _path_of(contract.model):
            raise ContractError(
                f"{contract.type} is declared twice, by {_path_of(existing.model)} and by "
                f"{_path_of(contract.model)}. Raise the version of one class, or rename its "
                f"contract."
            )
        self._by_type[contract.type] = contract

    def get(self, type_: str) -> Contract | None:
        """Return the contract of a type on the wire, or None if no class has this type.

        Args:
            type_: Type on the wire, `<name>.v<version>`.
        """
        return self._by_type.get(type_)

    def __iter__(self) -> Iterator[Contract]:
        return iter(self._by_type.values())

    def __len__(self) -> int:
        return len(self._by_type)


# All modules share this registry. If two modules declare the same type, the import fails.
CATALOG = Catalog()


def contract(  # noqa: PLR0913 - all options of a contract, by keyword
    name: str,
    *,
    version: int,
    permission: str | None = None,
    idempotent: bool = False,
    retry: RetryPolicy = DEFAULT_RETRY,
    encrypted: bool = False,
    criticality: Criticality = "critical",
    cache: float | None = None,
    catalog: Catalog = CATALOG,
) -> Callable[[M], M]:
    """Declare a `Request`, `Event` or `Job` class as one version of a contract.

    >>> @contract("billing.invoice-paid", version=1)
    ... class InvoicePaid(Event):
    ...     number: int

    Args:
        name: Name of the contract, `<service>.<operation>`. It consists of lower-case letters,
            digits and dashes. Dots separate the parts. The first part is the owning service.
        version: Version of the contract, from 1 to 9999. The type on the wire is
            `<name>.v<version>`.
        permission: Name of the right in `grants.toml`. The default is `name`, so all versions of
            the contract share one right.
        idempotent: True if handling a message twice has the same effect as handling it once. If it
            is False, the bus never repeats a request that may have been handled.
        retry: Retry policy of an event or job, for handlers that do not set a policy themselves. A
            request has no policy, because its caller retries it.
        encrypted: True to encrypt four payloads: the message, its reply, its result and its
            progress. The broker cannot read encrypted payloads. The sender and the receivers need
            the encryption keys.
        criticality: Importance of the message: `critical_plus`, `critical`, `sheddable_plus` or
            `sheddable`. An overloaded handler refuses the `sheddable` ones of its requests first.
        cache: Seconds, up to 86400, for which a client keeps a reply in its memory. It answers
            equal requests with the kept reply. Only an idempotent request can have it.
        catalog: Registry to which the contract is added.

    Returns:
        A decorator that returns the class unchanged.

    Raises:
        ContractError: The name or another option is invalid. The class is not a request, event or
            job. The reply type is not a message class. A field has values that JSON cannot carry
            unchanged. Or another class has the same name and version. The decorator raises this
            error at import.
    """
    options = {
        "name": name,
        "version": version,
        "permission": permission,
        "idempotent": idempotent,
        "retry": retry,
        "encrypted": encrypted,
        "criticality": criticality,
        "cache": cache,
    }

    def declare(model: M) -> M:
        check_class(model)
        check_catalog(catalog, Catalog, _path_of(model))
        check_options(_path_of(model), options)
        check_name(name, version, _path_of(model))
        check_permission(permission, _path_of(model))
        kind = _kind_of(model)
        if kind == "request" and retry is not DEFAULT_RETRY:
            raise ContractError(
                f"{_path_of(model)} is a request. Only its caller can retry it. Leave out retry=."
            )
        check_cache(_path_of(model), cache, kind, is_idempotent=idempotent)
        reply, is_reply_optional = (None, False) if kind == "event" else _find_reply(model)
        entry = Contract(
            name=name,
            version=version,
            kind=kind,
            model=model,
            reply=reply,
            is_reply_optional=is_reply_optional,
            permission=name if permission is None else permission,
            idempotent=idempotent,
            retry=retry,
            encrypted=encrypted,
            criticality=criticality,
            cache=cache,
        )
        existing = _CONTRACTS.get(model)
        if existing is not None and existing.type != entry.type:
            raise ContractError(
                f"{_path_of(model)} is declared as {existing.type} and as {entry.type}. "
                f"Define one class for each contract."
            )
        if all(each.__pydantic_complete__ for each in _messages_of(entry)):
            _check_messages(entry)
        else:
            _unresolved.add(model)
        catalog.add(entry)
        _CONTRACTS[model] = entry
        return model

    return declare


_CONTRACTS: dict[type[Message], Contract] = {}
_unresolved: set[type[Message]] = set()
"""Classes of contracts with a field whose type was not defined when the class was declared."""


def require_resolved(contract: Contract) -> None:
    """Resolve the types that were not defined when the contract was declared, and check them.

    Call it before the first message of the contract is sent or received.

    Raises:
        ContractError: The type of a field is not defined. Or a value of a field would not survive
            JSON. The error names the field.
    """
    if contract.model in _unresolved:
        complete = import_module("bus.contracts.forward_references").complete
        for message in _messages_of(contract):
            complete(message, contract.type, _suffix_of(message, contract))
        _check_messages(contract)
        _unresolved.discard(contract.model)


def _check_messages(contract: Contract) -> None:
    # A process that declares no contract does not load the check.
    check_lossless = import_module("bus.contracts.lossless").check_lossless
    for message in _messages_of(contract):
        check_lossless(message, contract.type, _suffix_of(message, contract))


def _messages_of(contract: Contract) -> list[type[Message]]:
    return [contract.model, *([contract.reply] if contract.reply else [])]


def _suffix_of(message: type[Message], contract: Contract) -> str:
    return "" if message is contract.model else f" of the reply {message.__name__}"


def contract_of(model: type[Message]) -> Contract:
    """Return the contract of a class.

    Args:
        model: Class with the decorator `@contract`. A subclass does not inherit the contract.

    Raises:
        ContractError: The class is not decorated.
    """
    try:
        return _CONTRACTS[model]
    except (KeyError, TypeError):  # TypeError: an object that cannot be hashed
        raise ContractError(_describe_missing(model)) from None


def _describe_missing(model: object) -> str:
    """Return why an object, which may be any object, is not a class with a contract."""
    if isinstance(model, Message):
        name = type(model).__name__
        return f"an object of the class {name} is not a class. Pass the class {name} itself."
    if not isinstance(model, type):
        return (
            f"a value of type {type(model).__name__} is not a class of messages. Pass a class that "
            "has @contract(name, version=…)."
        )
    if not issubclass(model, Message):
        return (
            f"{_path_of(model)} is not a class of messages. Derive it from Request, Event or Job, "
            "and decorate it with @contract(name, version=…)."
        )
    return f"{_path_of(model)} has no contract. Decorate it with @contract(name, version=…)."


ARTICLES: dict[type[Message], str] = {Request: "a", Event: "an", Job: "a"}


def _kind_of(model: type[Message]) -> Kind:
    kinds: dict[type[Message], Kind] = {Request: "request", Event: "event", Job: "job"}
    found = [base for base in kinds if issubclass(model, base)]
    if len(found) == 1:
        return kinds[found[0]]
    if found:
        names = " and ".join(f"{ARTICLES[base]} {base.__name__}" for base in found)
        raise ContractError(f"{_path_of(model)} is {names}. Derive it from one of these classes.")
    raise ContractError(
        f"{_path_of(model)} is neither a Request, nor an Event, nor a Job. Derive it from one of "
        f"these classes."
    )


def _find_reply(model: type[Message]) -> tuple[type[Message] | None, bool]:
    """Return the reply type of a request or job, and True if the reply can also be None."""
    reply = find_reply_type(model, (Request, Job))
    if reply is None:
        raise ContractError(
            f"{_path_of(model)} does not specify its reply type. Derive it from Request[Reply] or "
            f"Job[Result]."
        )
    return resolve_reply(reply, Message, (Request, Event, Job), _path_of(model))


def _path_of(model: type) -> str:
    return f"{model.__module__}.{model.__qualname__}"
