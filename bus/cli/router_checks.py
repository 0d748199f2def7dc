"""Checks whether a router could start on this machine and broker. `bus doctor` reports the results.

They are the checks of a start that change nothing: no object is declared.
"""

import socket
from collections.abc import Mapping, Sequence

from bus.cli.doctor_report import Report
from bus.cli.loading import load_router
from bus.errors import BusError, ConfigurationError
from bus.messaging.topology.model import Queue
from bus.operations.topology.verify import check_policies, policies_on, verify_by_amqp
from bus.runtime.handler_timeouts import check_handler_timeouts
from bus.runtime.requirements import check_has_handlers, required_by
from bus.runtime.router import Router
from bus.settings import Settings
from bus.transports.rabbitmq.consumer_timeout import supports_consumer_timeout

__all__ = ["check_health_port", "check_routers", "routers_in"]


def routers_in(targets: Sequence[str]) -> list[Router]:
    """Return the routers among the targets, which can also be names of services.

    Raises:
        ConfigurationError: A router cannot be imported.
    """
    return [load_router(target) for target in targets if ":" in target]


async def check_routers(routers: Sequence[Router], settings: Settings, report: Report) -> None:
    """Compare the routers with the broker that has answered. Add the problems to the report.

    Without BUS_MANAGEMENT_URL, the arguments of existing queues and the policies are not checked.
    """
    for router in routers:
        try:
            check_has_handlers(router)
            await _check_timeouts(router, settings, report.server or {})
            await _check_topology(router, settings)
        except BusError as error:
            report.record_problem(error)


def check_health_port(settings: Settings, report: Report) -> None:
    """Add a warning to the report if a worker could not open the port of BUS_HEALTH_PORT.

    It is only a warning, because the worker that uses the port can be the checked service itself.
    """
    port = settings.health_port
    if not port:
        return
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            settings.health_host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as candidate:
                candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                candidate.bind(address)
    except OSError as error:
        report.warnings.append(
            f"port {port} of BUS_HEALTH_PORT cannot be opened ({error.strerror}), so `bus run` "
            "cannot start here. Choose another port, unless a worker of this service uses it."
        )


async def _check_timeouts(router: Router, settings: Settings, server: Mapping[str, str]) -> None:
    def is_supported(queue: Queue) -> bool:
        return supports_consumer_timeout(server, queue.arguments.get("x-queue-type"))

    async def policies(queue: Queue) -> Mapping[str, object]:
        return await policies_on(queue, settings)

    await check_handler_timeouts(
        router,
        settings,
        supported=is_supported,
        policies=policies,
        has_store=settings.has_store,
    )


async def _check_topology(router: Router, settings: Settings) -> None:
    required = required_by([router], settings)
    if settings.topology == "verify":
        missing = (await verify_by_amqp(required, settings)).differences
        if missing:
            names = ", ".join(f"{each.what} {each.name}" for each in missing)
            raise ConfigurationError(
                f"{router.name}: the broker does not have {names}. With BUS_TOPOLOGY=verify the "
                "service does not create them. Let an administrator import the output of "
                "`bus topology export`."
            )
    await check_policies(required, settings)
