"""Inclusion: the routers that serve the handlers of one service together."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
)
from typing import Any
from weakref import WeakSet

from bus.errors import ContractError
from bus.messaging.context import Sender
from bus.runtime.declared_parameters import path_of
from bus.runtime.dependency_checks import check_same_dependency
from bus.runtime.endpoint import Endpoint
from bus.runtime.lifespan import no_lifespan, open_lifespan

__all__ = ["RouterNode"]


class RouterNode:
    """A router in the tree of routers that include each other."""

    def __init__(
        self, name: str, lifespan: Callable[..., AbstractAsyncContextManager[Any]]
    ) -> None:
        """Create a node without endpoints. `name` is the name of the service."""
        self.name = name
        self.lifespan = lifespan
        self.endpoints: dict[str, Endpoint] = {}
        """The endpoints of this node and of its included nodes, by the name of the queue."""
        self.own_queues: list[str] = []
        """The queues whose handlers were registered in this node."""
        self.included: list[RouterNode] = []
        self.parents: WeakSet[RouterNode] = WeakSet()
        self.times_served = 0
        """The number of buses that serve this node now."""

    def add(self, endpoint: Endpoint) -> None:
        """Add an endpoint to this node, and to all nodes that include it.

        Raises:
            ContractError: The queue already has a handler, or a node is served now.
        """
        nodes = self.including()
        for node in nodes:
            node.check_can_change()
            node.check_free(endpoint)
        for node in nodes:
            node.endpoints[endpoint.queue] = endpoint
        self.own_queues.append(endpoint.queue)

    def include(self, other: "RouterNode") -> None:
        """Include another node, as `Router.include` describes.

        Raises:
            ContractError: The node cannot be included.
        """
        if other.name != self.name:
            raise ContractError(
                f"the router of {self.name!r} cannot include a router of {other.name!r}, because "
                "each service has its own queues and its own key. Use the same service name in "
                "both routers, or serve both services with `bus run MODULE:ROUTER MODULE:ROUTER`."
            )
        new = other.members()
        if self in new:
            raise ContractError(
                f"{self.name}: a router cannot include itself or a router that includes it. "
                "Remove one of the includes."
            )
        nodes = self.including()
        for node in nodes:
            node.check_can_change()
            if not set(new).isdisjoint(node.members()):
                raise ContractError(
                    f"{self.name}: a router cannot be included twice. Remove one of the includes."
                )
            for endpoint in other.endpoints.values():
                node.check_free(endpoint)
        for node in nodes:
            node.endpoints.update(other.endpoints)
        self.included.append(other)
        other.parents.add(self)

    def check_free(self, endpoint: Endpoint) -> None:
        """Check that the endpoint's queue has no handler yet, and that its dependency fits.

        Raises:
            ContractError: The queue has a handler. The error names both handlers. Or another
                handler names the same dependency with other values.
        """
        others = (other.policies.dependency for other in self.endpoints.values())
        check_same_dependency(endpoint.policies.dependency, others, endpoint.contract.type)
        existing = self.endpoints.get(endpoint.queue)
        if existing is not None:
            hint = (
                "Set a different subscription for each handler."
                if endpoint.contract.kind == "event"
                else "Remove one of them."
            )
            raise ContractError(
                f"{endpoint.contract.type} has two handlers in {self.name}: "
                f"{path_of(existing.function)} and {path_of(endpoint.function)}. {hint}"
            )

    def check_can_change(self) -> None:
        """Check that no bus serves this node.

        Raises:
            ContractError: A bus serves the node, so a new handler would get no messages.
        """
        if self.times_served:
            raise ContractError(
                f"{self.name}: the router is served now, so a new handler would get no messages. "
                "Register all handlers and include all routers before Bus.serving."
            )

    def members(self) -> list["RouterNode"]:
        """Return this node, and all nodes that it includes."""
        return [self, *(each for node in self.included for each in node.members())]

    def including(self) -> list["RouterNode"]:
        """Return this node, and all nodes that include it."""
        above = (each for node in self.parents for each in node.including())
        return list(dict.fromkeys([self, *above]))

    @asynccontextmanager
    async def opened(self, bus: Sender) -> AsyncIterator[Mapping[str, Any]]:
        """Enter the lifespans of this node and of its included nodes inside the block.

        The block gets the state of each endpoint, by the name of the queue. Inside the block, the
        nodes refuse new handlers.

        Args:
            bus: The bus, which lifespans can use.
        """
        async with AsyncExitStack() as stack:
            states = await self.enter_lifespans(stack, bus, None)
            with self.closed_to_changes():
                yield {queue: state for node, state in states for queue in node.own_queues}

    async def enter_lifespans(
        self, stack: AsyncExitStack, bus: Sender, inherited: object
    ) -> list[tuple["RouterNode", Any]]:
        """Enter the lifespans on `stack`, and return each node with its state.

        A node without a lifespan has the state of the node that includes it (`inherited`).
        """
        state = inherited
        if self.lifespan is not no_lifespan:
            state = await stack.enter_async_context(open_lifespan(self.lifespan, bus, self.name))
        states: list[tuple[RouterNode, Any]] = [(self, state)]
        for node in self.included:
            states += await node.enter_lifespans(stack, bus, state)
        return states

    @contextmanager
    def closed_to_changes(self) -> Iterator[None]:
        """Refuse new handlers and new included nodes inside the block."""
        members = self.members()
        for node in members:
            node.times_served += 1
        try:
            yield
        finally:
            for node in members:
                node.times_served -= 1
