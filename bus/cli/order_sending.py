"""Sending of an order to live instances, and the report of what they have done."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import typer

from bus.cli.audit import who
from bus.cli.broker_name import BROKER_IN_BUS_URL, name_broker
from bus.cli.output import print_json, say, suppress_library_logs
from bus.cli.services.questions import no_answer
from bus.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    NotFound,
    PermissionDenied,
)
from bus.messaging.control import Ping, Target
from bus.messaging.escaped_text import one_line
from bus.messaging.orders import Order, OrderResult
from bus.messaging.plurals import count_noun
from bus.messaging.resilience.chaos_plan import FAULT_LIMITS
from bus.messaging.timers import utc_time
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.open_asker import open_asker
from bus.settings import Settings

__all__ = ["Obeyed", "give_order", "operator_name", "report", "run_order", "send_order"]

REASONS = {
    "ended": "the end of the order is over by its clock",
    "too-long": "the end of the order is too far ahead by its clock",
    "no-effect": f"the faults do not affect its operations: {FAULT_LIMITS}",
    "not-pausable": "it handles requests, and their callers wait. To keep requests away, isolate "
    "the breaker in the calling services with `bus breakers isolate`, or stop the instances",
    "no-store": "the service has no store, so a pause needs an end. Pass --for TIME, or set "
    "BUS_STORE of the service",
    "not-understood": "its version of the bus does not know a value of the order",
}
REMEDIED = {"not-pausable", "no-store"}
"""Reasons of which the text has the remedy."""


@dataclass(frozen=True, slots=True)
class Obeyed:
    """The answers to an order."""

    order: Order
    results: Sequence[OrderResult]
    alive: int
    """Number of the instances that answered a ping, or that answered the order."""

    @property
    def applied(self) -> list[OrderResult]:
        """The answers of the instances that have obeyed."""
        return [each for each in self.results if each.outcome == "applied"]

    @property
    def ignored(self) -> list[OrderResult]:
        """The answers of the other instances."""
        return [each for each in self.results if each.outcome != "applied"]

    @property
    def unused(self) -> set[int]:
        """Numbers of the faults without an effect in any instance that has obeyed."""
        return (
            set.intersection(*({*each.unused} for each in self.applied)) if self.applied else set()
        )

    def without_missing(self) -> "Obeyed":
        """Return the answers without the instances that lack the object, if others have it."""
        found = [each for each in self.results if each.why != "not-found"]
        if not found:
            return self
        return Obeyed(self.order, found, self.alive - len(self.results) + len(found))


def operator_name(settings: Settings) -> str | None:
    """Return the name that an order states for its operator. With a key it is not needed."""
    return None if settings.auth == "on" else one_line(who())[:255]


def run_order(settings: Settings, order: Order, target: Target, window: float) -> Obeyed:
    """Give an order in an event loop of its own, without the log lines of libraries."""
    with suppress_library_logs():
        return asyncio.run(send_order(settings, order, target, window))


async def send_order(settings: Settings, order: Order, target: Target, window: float) -> Obeyed:
    """Connect to the broker, and give an order."""
    async with open_asker(settings) as asker:
        return await give_order(asker, order, target, window, broker=name_broker(settings))


async def give_order(
    asker: Asker,
    order: Order,
    target: Target,
    window: float,
    *,
    broker: str = BROKER_IN_BUS_URL,
) -> Obeyed:
    """Find the live instances, and give them an order.

    Args:
        asker: The asker that sends the order.
        order: The order.
        target: The instances that it is for.
        window: Seconds to wait for the answers.
        broker: Name of the broker in the error if no instance answers.

    Raises:
        PermissionDenied: The command has no right to give the order.
        NotFound: Other services answered, and the service did not.
        Unavailable: No instance answered.
    """
    alive = 0
    with suppress(PermissionDenied):  # the instances can have other grants than this command
        alive = len(await asker.ask(Ping(), target, window=window))
    answers = await asker.ask(order, target, window=window, expected=alive or None)
    if not alive and not answers:
        raise await no_answer(
            asker, target.service, window, instance=target.instance, broker=broker
        )
    results = sorted((each.record for each in answers), key=lambda it: (it.service, it.instance))
    return Obeyed(order, results, max(alive, len(results)))


def report(obeyed: Obeyed, done: str, *, missing: str, as_json: bool) -> None:
    """Print what the instances have done.

    Args:
        obeyed: The answers to the order.
        done: Effect of the order in an instance, such as `isolated billing.quote.v1`.
        missing: Reason of an instance without the object, with the remedy.
        as_json: True to print one line of JSON.

    Raises:
        NotFound: No instance has the object.
        FailedPrecondition: No instance has obeyed, for another reason.
        DeadlineExceeded: Some live instances have not answered.
    """
    applied, silent = len(obeyed.applied), obeyed.alive - len(obeyed.results)
    if as_json:
        print_json(_to_json(obeyed), compact=True)
    elif applied:
        for each in obeyed.ignored:
            cause = _cause(each, missing)
            say(one_line(f"{each.service} {each.instance}: ignored, because {cause}"))
        share = f"{applied} of {count_noun(obeyed.alive, 'instance')}"
        typer.echo(one_line(f"{done}: {share}{_end(obeyed)}"))
    if not applied and obeyed.results:
        _raise_ignored(obeyed, missing)
    if silent > 0:
        raise DeadlineExceeded(
            f"{count_noun(silent, 'live instance')} did not answer the order, and may not have "
            "obeyed it. Check that they run this version of the bus, that the operator has the "
            "right to give the order, and their logs."
        )


def _raise_ignored(obeyed: Obeyed, missing: str) -> None:
    causes = "; ".join(sorted({_cause(each, missing) for each in obeyed.ignored}))
    if all(each.why == "not-found" for each in obeyed.ignored):
        raise NotFound(f"no instance has obeyed: {causes}")
    if all(each.why in REMEDIED for each in obeyed.ignored):
        raise FailedPrecondition(f"no instance has obeyed: {causes}.")
    raise FailedPrecondition(
        f"no instance has obeyed: {causes.rstrip('.')}. Check the clocks of the instances, and "
        "their versions of the bus."
    )


def _cause(result: OrderResult, missing: str) -> str:
    if result.why == "not-found":
        return missing
    return REASONS.get(result.why or "", result.why or "unknown")


def _end(obeyed: Obeyed) -> str:
    """Return the end of the effect as text, or no text if the order has an effect at once only."""
    ends = obeyed.order.ends_at
    if ends is not None:
        return f", until {utc_time(ends)}"
    return ", until an operator ends it" if obeyed.order.is_lasting else ""


def _to_json(obeyed: Obeyed) -> dict[str, object]:
    return {
        "order": obeyed.order.name,
        "until": obeyed.order.until,
        "alive": obeyed.alive,
        "applied": len(obeyed.applied),
        "instances": [
            {
                "service": each.service,
                "instance": each.instance,
                "outcome": each.outcome,
                "why": each.why,
                "changed": each.changed,
                "stored": each.stored,
            }
            for each in obeyed.results
        ],
    }
