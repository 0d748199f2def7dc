"""Trunkline: requests, events and jobs between Python services on RabbitMQ.

The names are loaded when they are first used (PEP 562): importing a kind must not load the transports. Only those of
`bus.contract` are loaded at once, because its decorator has the module's name: a module that is imported later would
take the name's place.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from bus.contract import Event, Job, Message, Request, contract

if TYPE_CHECKING:
    from bus.app import Bus
    from bus.context import Context, correlated
    from bus.depends import Depends
    from bus.errors import (
        Aborted,
        AlreadyExists,
        BusError,
        Cancelled,
        ConfigurationError,
        ConnectionLost,
        ContractError,
        ContractViolation,
        DataLoss,
        DeadlineExceeded,
        Expired,
        FailedPrecondition,
        Internal,
        InvalidArgument,
        NotFound,
        NotServed,
        OutOfRange,
        PermissionDenied,
        ResourceExhausted,
        TopologyMismatch,
        Unauthenticated,
        Unavailable,
        Undecodable,
        Unimplemented,
        Unknown,
        UnknownKey,
    )
    from bus.policy import RetryPolicy
    from bus.replies import JobHandle
    from bus.router import Router
    from bus.sensitive import Sensitive
    from bus.settings import Settings
    from bus.stacks import CLIENT, SERVER

_HOMES = {
    "bus.app": ("Bus",),
    "bus.context": ("Context", "correlated"),
    "bus.depends": ("Depends",),
    "bus.errors": (
        "Aborted",
        "AlreadyExists",
        "BusError",
        "Cancelled",
        "ConfigurationError",
        "ConnectionLost",
        "ContractError",
        "ContractViolation",
        "DataLoss",
        "DeadlineExceeded",
        "Expired",
        "FailedPrecondition",
        "Internal",
        "InvalidArgument",
        "NotFound",
        "NotServed",
        "OutOfRange",
        "PermissionDenied",
        "ResourceExhausted",
        "TopologyMismatch",
        "Unauthenticated",
        "Unavailable",
        "Undecodable",
        "Unimplemented",
        "Unknown",
        "UnknownKey",
    ),
    "bus.policy": ("RetryPolicy",),
    "bus.replies": ("JobHandle",),
    "bus.router": ("Router",),
    "bus.sensitive": ("Sensitive",),
    "bus.settings": ("Settings",),
    "bus.stacks": ("CLIENT", "SERVER"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CLIENT",
    "SERVER",
    "Aborted",
    "AlreadyExists",
    "Bus",
    "BusError",
    "Cancelled",
    "ConfigurationError",
    "ConnectionLost",
    "Context",
    "ContractError",
    "ContractViolation",
    "DataLoss",
    "DeadlineExceeded",
    "Depends",
    "Event",
    "Expired",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "Job",
    "JobHandle",
    "Message",
    "NotFound",
    "NotServed",
    "OutOfRange",
    "PermissionDenied",
    "Request",
    "ResourceExhausted",
    "RetryPolicy",
    "Router",
    "Sensitive",
    "Settings",
    "TopologyMismatch",
    "Unauthenticated",
    "Unavailable",
    "Undecodable",
    "Unimplemented",
    "Unknown",
    "UnknownKey",
    "contract",
    "correlated",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'bus' has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
