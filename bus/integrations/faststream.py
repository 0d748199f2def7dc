"""The bus in FastStream applications: a router beside the application's own subscribers, or as an application of its own.

>>> app = FastStream(broker)
>>> bus = attach(app, router)  # served from now on whenever the application runs
"""

import asyncio
import logging
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
    """An application that serves `router` and nothing else, for `faststream run MODULE:NAME`.

    Settings are from the environment. Logging is set up when it starts, unless somebody has done so (`--log-config`).
    """
    chosen = settings or load_settings()
    app = new_application(broker_of_its_own(chosen, name=router.name))
    transport = FastStreamTransport(broker_of(app), settings=chosen, name=router.name, own=True)

    async def prepare() -> None:
        if not logging.getLogger().handlers:
            configure_logging(chosen)
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
    """Serve `router` on the application's broker whenever the application runs, beside its own subscribers.

    Returns the service's bus, by which those can ask, tell and submit. It is connected once the application has started.
    The settings `url` and `password_file` are not looked at: messages go where the application's broker is. `client` and
    `server` as of `Bus`.
    Raises `ConfigurationError` where the application has no RabbitMQ broker.
    """
    chosen = settings or load_settings()
    transport = FastStreamTransport(broker_of(app), settings=chosen, name=router.name)
    bus = Bus(router.name, settings=chosen, transport=transport, client=client, server=server)
    _serve(app, router, bus)
    return bus


def _serve(app: AnyApplication, router: Router, bus: Bus) -> None:
    served = AttachedService(bus, router)
    app.after_startup(served.start)
    app.on_shutdown(served.stop)


class AttachedService:
    """A router, served between two hooks of an application."""

    def __init__(self, bus: Bus, router: Router) -> None:
        self._bus = bus
        self._router = router
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when every consumer is ready; raises what `Bus` raises at its start."""
        if self._serving is not None:
            raise FailedPrecondition("an application runs once; make another to run again")
        ready = asyncio.Event()
        # A task of its own: FastStream calls its hooks from different ones, and a lifespan may have to be left in the one
        # that entered it.
        self._serving = asyncio.create_task(self._serve(ready), name=f"serving {self._router.name}")
        waiting = asyncio.create_task(ready.wait())
        await asyncio.wait((self._serving, waiting), return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if self._serving.done():
            self._serving.result()

    async def _serve(self, ready: asyncio.Event) -> None:
        async with self._bus, self._bus.serving(self._router):
            ready.set()
            await self._stop.wait()

    async def stop(self) -> None:
        """A clean stop, before FastStream closes the connection."""
        self._stop.set()
        if self._serving is not None and not self._serving.done():
            await self._serving
