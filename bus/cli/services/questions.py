"""Questions of `bus services`, and the errors if no instance answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from bus.cli.broker_name import BROKER_IN_BUS_URL
from bus.errors import NotFound, Unavailable
from bus.messaging.control import ALL, GetInfo, GetStats, Ping, Target
from bus.messaging.service_info import InstanceInfo
from bus.messaging.suggestions import did_you_mean
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.live_view import LiveView
from bus.runtime.discovery.service_summary import ServiceSummary, summarize_services

__all__ = ["Answered", "ask_services", "no_answer", "unknown_service"]


@dataclass(frozen=True, slots=True)
class Answered:
    """The answers of live instances."""

    services: Sequence[ServiceSummary]
    infos: Sequence[InstanceInfo]


async def ask_services(
    asker: Asker, service: str | None, window: float, *, broker: str = BROKER_IN_BUS_URL
) -> Answered:
    """Ask the instances of a service, or of all services, for their statistics and contracts.

    Args:
        asker: The asker that sends the questions.
        service: Name of the service. None: all services.
        window: Seconds to wait for answers.
        broker: Name of the broker in the error if no instance answers.

    Raises:
        NotFound: Other services answered, and the service did not.
        Unavailable: No instance of any service answered.
    """
    view, target = LiveView(), Target(service)
    begun = view.clock()
    stats, infos = await asyncio.gather(
        asker.ask(GetStats(), target, window=window), asker.ask(GetInfo(), target, window=window)
    )
    view.add_round(stats, target, begun=begun)
    services = summarize_services(view.live())
    if not services:
        raise await no_answer(asker, service, window, broker=broker)
    return Answered(services, [answer.record for answer in infos])


async def no_answer(
    asker: Asker,
    service: str | None,
    window: float,
    *,
    instance: str | None = None,
    broker: str = BROKER_IN_BUS_URL,
) -> NotFound | Unavailable:
    """Return the error for a question that no instance answered.

    Args:
        asker: The asker that asks which services and instances are alive.
        service: Service that the question was for. None: all services.
        window: Seconds to wait for answers.
        instance: Instance that the question was for. None: all instances of the service.
        broker: Name of the broker in the error.
    """
    if service is not None:
        alive = [answer.record for answer in await asker.ask(Ping(), ALL, window=window)]
        instances = {each.instance for each in alive if each.service == service}
        if instances and instance is not None and instance not in instances:
            return _unknown_instance(service, instance, instances, window)
        if instances:
            return Unavailable(
                f"service {service!r}: it is alive, but no instance answered the question within "
                f"{window:g} s. Check that its instances run this version of the bus, and that the "
                "key of this command has the right control.read. For slow instances, pass a longer "
                "--window."
            )
        if alive:
            return unknown_service(service, {each.service for each in alive}, window)
    return Unavailable(
        f"no instance of a service answered within {window:g} s. Check that services run and use "
        f"{broker}, that BUS_DISCOVERY is not off, that BUS_AUTH has the same value for them and "
        "for this command, and that the key of this command has the right control.read. "
        "For slow instances, pass a longer --window."
    )


def unknown_service(service: str, names: set[str], window: float) -> NotFound:
    """Return the error for a service that did not answer, although services in `names` did."""
    hint = did_you_mean(service, names)
    if not hint:
        hint = f". These services answered: {', '.join(sorted(names))}."
    return NotFound(f"service {service!r}: no instance answered within {window:g} s{hint}")


def _unknown_instance(service: str, instance: str, instances: set[str], window: float) -> NotFound:
    hint = did_you_mean(instance, instances) or f". `bus services {service}` lists its instances."
    return NotFound(
        f"instance {instance!r} of the service {service!r}: it did not answer within "
        f"{window:g} s{hint}"
    )
