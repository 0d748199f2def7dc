"""The properties of a private node that stay the same between two runs, and their file format.

The file can come from another user. So each value is checked, and an unknown value is an error.
"""

import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from bus.operations.brokers.broker_options import MAX_PORT, MIN_PORT, BrokerOptions, is_password
from bus.operations.brokers.node_files import new_node_name

__all__ = ["NodeState"]

NODE_NAME = re.compile(r"bus-[0-9a-f]{8}@localhost")
VERSION = re.compile(r"[0-9A-Za-z.+-]{1,40}")


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """The properties of a node that stay the same after a restart."""

    name: str = field(default_factory=new_node_name)
    """Name of the Erlang node. RabbitMQ finds its data by this name."""
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12), repr=False)
    port: int | None = None
    management_port: int | None = None
    rabbitmq: str | None = None
    """Version of the RabbitMQ that wrote the data. None: no node has started yet."""

    @classmethod
    def from_json(cls, text: str) -> "NodeState":
        """Return the state that `as_json` has written.

        Raises:
            ValueError: The text is not JSON, or a value is missing, unknown or not possible.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError):  # lists that are nested too deeply
            raise ValueError("the text is not JSON") from None
        if not isinstance(values, Mapping) or values.keys() != CHECKS.keys():
            raise ValueError("a name is missing or not known")
        wrong = [name for name, check in CHECKS.items() if not check(values[name])]
        if wrong or values["port"] == values["management_port"]:
            raise ValueError("a value is not possible")
        return cls(**values)

    def as_json(self) -> str:
        """Return the text of the file."""
        return json.dumps(asdict(self))

    def updated(self, options: BrokerOptions) -> "NodeState":
        """Return the state with the options that are set."""
        return replace(
            self,
            port=options.port or self.port,
            management_port=options.management_port or self.management_port,
            password=options.password or self.password,
        )


def _is_port(value: object) -> bool:
    return type(value) is int and MIN_PORT <= value <= MAX_PORT  # True is an int, but not a port


CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str) and NODE_NAME.fullmatch(value) is not None,
    "password": lambda value: isinstance(value, str) and is_password(value),
    "port": _is_port,
    "management_port": _is_port,
    "rabbitmq": lambda value: (
        value is None or (isinstance(value, str) and VERSION.fullmatch(value) is not None)
    ),
}
"""A check for the value of each name in the file."""
