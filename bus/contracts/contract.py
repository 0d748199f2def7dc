"""Contracts: what services say to each other, as versioned pydantic models.

A contract's type is `<name>.v<version>`; the first part of the name is the owning service: it alone answers,
does, or publishes it. `@contract` is a decorator and not class keywords, because pydantic's metaclass takes any
keyword, misspelt ones too, while a decorator's are checked by mypy and pyright.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, Self, TypeVar, cast

from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from bus.contracts.payload import decode, encode
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
]

Kind = Literal["request", "event", "job"]

PART = re.compile(r"[a-z][a-z0-9-]*")
NAME = re.compile(rf"{PART.pattern}(\.{PART.pattern})+")
PERMISSION = re.compile(r"[a-z][a-z0-9:._-]*")
"""No space: a token's scope is a list with spaces between."""
VERSION_PART = re.compile(r"v\d+")
# A queue's name is an AMQP short string (255 bytes); the longest is that of a subscription's dead letters:
# <service>.events.<contract>.v<version>.<subscription>.dead
MAX_NAME_LENGTH = 100
MAX_PART_LENGTH = 60
MAX_VERSION = 9999
OURS = "bus"
"""The prefix of the bus's own exchanges and types; no service has it."""


class Message(BaseModel):
    """A value that crosses the wire: frozen, JSON, unknown fields ignored so that a newer sender may add some.

    Its repr names the fields and shows no value: reprs end up in logs and tracebacks. `bus.testing.shown_values` shows them.
    """

    # hide_input_in_errors: an error's text must never show a patient's data. allow_inf_nan: JSON has no such numbers.
    model_config = ConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False
    )

    @override
    def __repr_args__(self) -> Iterable[tuple[str | None, object]]:
        """What `repr` and `str` show; pydantic's own hook."""
        return shown_fields(self)


DEFAULT_RETRY = RetryPolicy()
R = TypeVar("R", bound=Message | None)
M = TypeVar("M", bound=type[Message])
Q_co = TypeVar("Q_co", covariant=True)
R_co = TypeVar("R_co", covariant=True)


class Request(Message, Generic[R]):
    """Somebody answers now: `class GetTranscript(Request[Transcript])`; `Request[None]` answers without content."""

    @classmethod
    def __asks__(cls) -> tuple[type[Self], type[R]]:
        return cls, cast("type[R]", contract_of(cls).reply)


class Job(Message, Generic[R]):
    """One service does it once, later, and it survives everything; its result is an `R`."""

    @classmethod
    def __orders__(cls) -> tuple[type[Self], type[R]]:
        return cls, cast("type[R]", contract_of(cls).reply)


class Event(Message):
    """A fact; zero or more services care."""


class RequestClass(Protocol[Q_co, R_co]):
    """What a request's class is to the type checker: it knows its own type and its reply's."""

    def __asks__(self) -> tuple[type[Q_co], type[R_co]]: ...


class JobClass(Protocol[Q_co, R_co]):
    """What a job's class is to the type checker: it knows its own type and its result's."""

    def __orders__(self) -> tuple[type[Q_co], type[R_co]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Contract:
    """What `@contract` knows of a class."""

    name: str
    """`<service>.<operation>`, lower case, dots between parts."""
    version: int
    kind: Kind
    model: type[Message]
    reply: type[Message] | None
    """The reply or result type; None for events, and for requests and jobs that answer without content."""
    permission: str
    """The right to call (requests, jobs), or to publish and to consume (events); all versions of a contract share it."""
    idempotent: bool = False
    """Whether running it twice has the effect of running it once: then the bus itself may try it again."""
    retry: RetryPolicy = DEFAULT_RETRY
    """Events and jobs: how a handler that says nothing else is retried."""
    encrypted: bool = False
    """Whether the payload is encrypted on its way, and those of its reply, result and progress."""

    type: str = field(init=False)
    """The type on the wire, `<name>.v<version>`; the routing key, too."""
    service: str = field(init=False)
    """The owning service, the first part of the name."""

    def __post_init__(self) -> None:
        """Derive what every message asks for."""
        object.__setattr__(self, "type", f"{self.name}.v{self.version}")
        object.__setattr__(self, "service", self.name.partition(".")[0])

    @property
    def operation(self) -> str:
        """The name without its service."""
        return self.name.partition(".")[2]


class Catalog:
    """The contracts known to this process, by type and by class."""

    def __init__(self) -> None:
        self._by_type: dict[str, Contract] = {}

    def add(self, contract: Contract) -> None:
        """Add a contract; a second class of the same type is a `ContractError` that names both."""
        known = self._by_type.get(contract.type)
        if known is not None and _place(known.model) != _place(contract.model):
            raise ContractError(
                f"{contract.type} is declared twice: by {_place(known.model)} and by {_place(contract.model)}; "
                f"raise the version of one or rename it"
            )
        self._by_type[contract.type] = contract

    def get(self, type_: str) -> Contract | None:
        """The contract of a wire type, or None."""
        return self._by_type.get(type_)

    def __iter__(self) -> Iterator[Contract]:
        return iter(self._by_type.values())

    def __len__(self) -> int:
        return len(self._by_type)


# The one process-wide registry: a duplicate type has to fail at import, wherever its twin was imported.
CATALOG = Catalog()


def contract(  # noqa: PLR0913 - what may be said of a contract, each by its name
    name: str,
    *,
    version: int,
    permission: str | None = None,
    idempotent: bool = False,
    retry: RetryPolicy = DEFAULT_RETRY,
    encrypted: bool = False,
    catalog: Catalog = CATALOG,
) -> Callable[[M], M]:
    """Declare a `Request`, `Event` or `Job` class as version `version` of the contract `name`.

    `permission` is the right that `grants.toml` gives; without it the contract's name, so that all versions share it.
    `retry` is for handlers of an event or job that have no policy of their own; a request is retried by who asks.
    `encrypted` keeps the payload, and those of reply, result and progress, from the broker: each service needs the ring of keys.
    Raises `ContractError` at import for a bad name, version or permission, a class that is none of the three kinds, an
    unresolved reply type, or a type that another class has.
    """

    def declare(model: M) -> M:
        _check_name(name, version, model)
        _check_permission(permission, model)
        kind = _kind(model)
        if kind == "request" and retry is not DEFAULT_RETRY:
            raise ContractError(
                f"{_place(model)} is a request, which is retried by who asks; leave retry= out"
            )
        declared = Contract(
            name=name,
            version=version,
            kind=kind,
            model=model,
            reply=None if kind == "event" else _reply(model),
            permission=name if permission is None else permission,
            idempotent=idempotent,
            retry=retry,
            encrypted=encrypted,
        )
        known = _DECLARED.get(model)
        if known is not None and known.type != declared.type:
            raise ContractError(
                f"{_place(model)} is declared as {known.type} and as {declared.type}; a class has one contract"
            )
        catalog.add(declared)
        _DECLARED[model] = declared
        return model

    return declare


_DECLARED: dict[type[Message], Contract] = {}


def contract_of(model: type[Message]) -> Contract:
    """The contract of a class; `ContractError` where it is undecorated (a subclass does not inherit its parent's)."""
    try:
        return _DECLARED[model]
    except KeyError:
        raise ContractError(
            f"{_place(model)} has no contract; decorate it with @contract(name, version=…)"
        ) from None


def check_part(part: str, what: str) -> None:
    """`ContractError` where the name of a service or subscription could not be a part of a queue's name."""
    if not PART.fullmatch(part) or len(part) > MAX_PART_LENGTH:
        raise ContractError(
            f"{part[:MAX_NAME_LENGTH]!r} is no name of a {what}; write lower-case letters, digits and dashes, at most {MAX_PART_LENGTH}"
        )
    if part == OURS:
        raise ContractError(f"{part!r} is no name of a {what}: it is the bus's own")


def _check_name(name: str, version: int, model: type[Message]) -> None:
    if not NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        raise ContractError(
            f"{_place(model)}: {name!r} is no contract name; write '<service>.<operation>' in lower-case letters, "
            f"digits and dashes, at most {MAX_NAME_LENGTH} characters"
        )
    parts = name.split(".")
    check_part(parts[0], "service")
    if any(VERSION_PART.fullmatch(part) for part in parts):
        raise ContractError(
            f"{_place(model)}: {name!r} has a version in it; write version= instead"
        )
    if not 1 <= version <= MAX_VERSION:
        raise ContractError(f"{_place(model)}: versions go from 1 to {MAX_VERSION}, not {version}")


def _check_permission(permission: str | None, model: type[Message]) -> None:
    if permission is not None and (
        not PERMISSION.fullmatch(permission) or len(permission) > MAX_NAME_LENGTH
    ):
        raise ContractError(
            f"{_place(model)}: {permission[:MAX_NAME_LENGTH]!r} is no permission; write lower-case letters, digits and any of ':.-_', "
            f"at most {MAX_NAME_LENGTH} characters, such as 'read:notes'"
        )


def _kind(model: type[Message]) -> Kind:
    kinds: dict[type[Message], Kind] = {Request: "request", Event: "event", Job: "job"}
    for base, kind in kinds.items():
        if issubclass(model, base):
            return kind
    raise ContractError(f"{_place(model)} is neither a Request, nor an Event, nor a Job")


def _reply(model: type[Message]) -> type[Message] | None:
    for base in model.__mro__:
        generic = getattr(base, "__pydantic_generic_metadata__", {})
        if generic.get("origin") in (Request, Job):
            return _resolved(generic["args"][0], model)
    raise ContractError(
        f"{_place(model)} does not say what it answers; derive from Request[Reply] or Job[Result]"
    )


def _resolved(reply: object, model: type[Message]) -> type[Message] | None:
    if reply is None or reply is type(None):
        return None
    if isinstance(reply, type) and issubclass(reply, Message):
        return reply
    raise ContractError(
        f"{_place(model)}: its reply type {reply!r} is no Message; define the reply's class before it"
    )


def _place(model: type) -> str:
    return f"{model.__module__}.{model.__qualname__}"
