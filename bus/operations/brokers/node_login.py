"""The first login to a private node. It shows that the broker that answers is this node.

Another program can take the node's ports after they were checked. If that program is a RabbitMQ,
it answers in place of the node until the node ends with an error.
"""

from collections.abc import Awaitable, Callable

from bus.errors import Unauthenticated, Unavailable
from bus.operations.management_api import Management

__all__ = ["NodeLogin"]


class NodeLogin:
    """The login to one node. The caller repeats `done` until the result is True."""

    def __init__(
        self, management: Management, name: str, port: int, change: Callable[[], Awaitable[object]]
    ) -> None:
        """Prepare the login.

        Args:
            management: A client with the node's password.
            name: The name of the Erlang node.
            port: The node's port for AMQP.
            change: A function that changes the password of the node.
        """
        self._management, self._name, self._port = management, name, port
        self._change: Callable[[], Awaitable[object]] | None = change

    async def done(self) -> bool:
        """Return True if the node listens on its port and accepts the password.

        If the password is refused for the first time, change it. RabbitMQ keeps a password in its
        data, so a node can still have the one of an earlier run.
        """
        try:
            overview = await self._management.call("GET", "overview")
        except Unauthenticated:
            change, self._change = self._change, None
            if change is not None:
                await change()
            return False
        except Unavailable:
            return False
        return any(
            (listener["node"], listener["protocol"], listener["port"])
            == (self._name, "amqp", self._port)
            for listener in overview["listeners"]
        )
