"""Trunkline: requests, events and jobs between Python services on RabbitMQ.

The file `__init__.pyi` is the only list of the public names. Type checkers and this module read it.
A name is loaded at its first use (PEP 562), so that importing a contract does not load the
transports.
"""

import pkgutil
import re
from importlib import import_module

_STUB = (pkgutil.get_data("bus", "__init__.pyi") or b"").decode()
_MODULES = {
    name: module
    for module, name in re.findall(r"^from (bus\.[\w.]+) import (\w+) as \2$", _STUB, re.MULTILINE)
}

__all__ = sorted(_MODULES)  # noqa: PLE0605 - computed from the stub


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'bus' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return list(__all__)
