"""Questions of `bus services`, and the errors if no instance answers."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

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


async def ask_services(asker: Asker, service: str | None, window: float) -> Answered:
    """Ask the instances of a service, or of all services, for their statistics and contracts.

    Args:
        asker: The asker that sends the questions.
        service: Name of the service. None: all services.
        window: Seconds to wait for answers.

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
        raise await no_answer(asker, service, window)
    return Answered(services, [answer.record for answer in infos])


async def no_answer(asker: Asker, service: str | None, window: float) -> NotFound | Unavailable:
    """Return the error for a question that no instance answered."""
    if service is not None:
        names = {answer.record.service for answer in await asker.ask(Ping(), ALL, window=window)}
        if names:
            return unknown_service(service, names, window)
    return Unavailable(
        f"no instance of a service answered within {window:g} s. Check that services run and use "
        "the broker in BUS_URL, that BUS_DISCOVERY is not off, that BUS_AUTH has the same value "
        "for them and for this command, and that the key of this command has the right "
        "control.read. For slow instances, pass a longer --window."
    )


def unknown_service(service: str, names: set[str], window: float) -> NotFound:
    """Return the error for a service that did not answer, although services in `names` did."""
    hint = did_you_mean(service, names)
    if not hint:
        hint = f". These services answered: {', '.join(sorted(names))}."
    return NotFound(f"service {service!r}: no instance answered within {window:g} s{hint}")
