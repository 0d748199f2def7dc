"""FastStream: serve a router in an existing FastStream application, or in a new application.

>>> app = FastStream(broker)
>>> bus = attach(app, router)  # serves the router while the application runs
"""

import asyncio
from collections.abc import Sequence

from bus.errors import FailedPrecondition
from bus.messaging.handler import Middleware
from bus.operations.logging import configure_logging
from bus.runtime.bus import Bus
from bus.runtime.router import Router
from bus.settings import Settings, load_settings
from bus.transports.faststream import (
    AnyApplication,
    FastStream,
    FastStreamTransport,
    broker_of,
    broker_of_its_own,
    new_application,
)

__all__ = ["FastStreamTransport", "application", "attach", "broker_of_its_own"]


def application(router: Router, *, settings: Settings | None = None) -> FastStream:
    """Return an application that serves only `router`. Start it with `faststream run MODULE:NAME`.

    The application configures logging when it starts, unless logging is already configured
    (`--log-config`).

    Args:
        router: Handlers to serve.
        settings: Settings of the service. By default they are read from the environment.

    Raises:
        ConfigurationError: A setting is wrong.
    """
    chosen = settings or load_settings()
    app = new_application(broker_of_its_own(chosen, name=router.name))
    transport = FastStreamTransport(broker_of(app), settings=chosen, name=router.name, own=True)

    async def prepare() -> None:
        configure_logging(chosen, overwrite=False)
        await transport.connect(timeout=chosen.connect_timeout)

    app.on_startup(prepare)
    _serve(app, router, Bus(router.name, settings=chosen, transport=transport))
    return app


def attach(
    app: AnyApplication,
    router: Router,
    *,
    settings: Settings | None = None,
    client: Sequence[Middleware] | None = None,
    server: Sequence[Middleware] | None = None,
) -> Bus:
    """While the application runs, serve `router` on the application's broker.

    The application's subscribers run too, and can use the bus to send messages. The bus is
    connected after the application has started. The settings `url` and `password_file` are ignored,
    because the application's broker has its own address.

    Args:
        app: Application with a RabbitMQ broker.
        router: Handlers to serve.
        settings: Settings of the service. By default they are read from the environment.
        client: Policies for messages that are sent, as in `Bus`.
        server: Policies for messages that are handled, as in `Bus`.

    Returns:
        The bus of the service.

    Raises:
        ConfigurationError: The application has no RabbitMQ broker, or a setting is wrong.
    """
    chosen = settings or load_settings()
    transport = FastStreamTransport(broker_of(app), settings=chosen, name=router.name)
    bus = Bus(router.name, settings=chosen, transport=transport, client=client, server=server)
    _serve(app, router, bus)
    return bus


def _serve(app: AnyApplication, router: Router, bus: Bus) -> None:
    service = AttachedService(bus, router)
    app.after_startup(service.start)
    app.on_shutdown(service.stop)


class AttachedService:
    """Service that starts in one hook of an application, and stops in another hook."""

    def __init__(self, bus: Bus, router: Router) -> None:
        self._bus = bus
        self._router = router
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve, and return when every consumer is ready.

        Raises:
            FailedPrecondition: The application was already started.
            BusError: The bus failed to start.
        """
        if self._serving is not None:
            raise FailedPrecondition("the application has already run. Create a new application.")
        ready = asyncio.Event()
        # FastStream may call its hooks from different tasks, but some lifespans must be entered and
        # exited in the same task. Therefore one separate task enters and exits the lifespan.
        self._serving = asyncio.create_task(self._serve(ready), name=f"serving {self._router.name}")
        ready_waiter = asyncio.create_task(ready.wait())
        await asyncio.wait((self._serving, ready_waiter), return_when=asyncio.FIRST_COMPLETED)
        ready_waiter.cancel()
        if self._serving.done():
            self._serving.result()

    async def _serve(self, ready: asyncio.Event) -> None:
        async with self._bus, self._bus.serving(self._router):
            ready.set()
            await self._stop.wait()

    async def stop(self) -> None:
        """Stop cleanly. FastStream calls this method before it closes the connection."""
        self._stop.set()
        if self._serving is not None and not self._serving.done():
            await self._serving
