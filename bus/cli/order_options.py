"""Options of commands that give orders to live instances."""

import time
from typing import Annotated

import typer
from pydantic import TypeAdapter, ValidationError

from bus.cli.options import duration
from bus.cli.services.commands import check_service
from bus.errors import ContractError
from bus.messaging.control import ALL, Target
from bus.messaging.orders import MAX_REASON_LENGTH, Reason

__all__ = [
    "AllServices",
    "For",
    "ForService",
    "Instance",
    "Why",
    "end_after",
    "target_of",
]

REASON: TypeAdapter[str] = TypeAdapter(Reason)


def check_reason(text: str) -> str:
    """Return the reason for an order.

    Raises:
        typer.BadParameter: The reason is empty, is too long, or has control characters.
    """
    try:
        return REASON.validate_python(text)
    except ValidationError:
        raise typer.BadParameter(
            f"the reason must have 1 to {MAX_REASON_LENGTH} characters, without line ends."
        ) from None


ForService = Annotated[
    str | None,
    typer.Option(
        "--service",
        metavar="SERVICE",
        show_default=False,
        help="The service with the instances that obey. A breaker is in the service that calls.",
    ),
]
AllServices = Annotated[bool, typer.Option("--all", help="Let the instances of all services obey.")]
Instance = Annotated[
    str | None,
    typer.Option(
        "--instance",
        metavar="INSTANCE",
        show_default=False,
        help="With --service, let only this instance obey. `bus services SERVICE` lists the names.",
    ),
]
For = Annotated[
    float,
    typer.Option(
        "--for",
        parser=duration,
        metavar="TIME",
        show_default="10m",
        help="End the order by itself after this time: 90s, 15m or 2h. At most 24h.",
    ),
]
Why = Annotated[
    str,
    typer.Option(
        "--reason",
        metavar="TEXT",
        callback=check_reason,
        help="The reason. Instances log it and show it. It must have no confidential data.",
    ),
]


def target_of(service: str | None, instance: str | None, *, all_: bool) -> Target:
    """Return the instances that an order is for.

    Raises:
        ContractError: Neither a service nor `--all` is given, or both. Or a name is invalid.
    """
    if (service is None) is not all_:
        raise ContractError(
            "an order needs either --service SERVICE or --all. Choose one of the two. A "
            "breaker is in the service that calls, and chaos in the service that handles."
        )
    if service is None:
        if instance is not None:
            raise ContractError("--instance needs --service. Add --service SERVICE.")
        return ALL
    check_service(service)
    return Target(service, instance)


def end_after(seconds: float, longest: float) -> int:
    """Return the end of an order in milliseconds since the epoch.

    Args:
        seconds: Seconds until the end.
        longest: Maximum number of seconds.

    Raises:
        typer.BadParameter: The time is 0 or too long.
    """
    if not 0 < seconds <= longest:
        raise typer.BadParameter(
            f"the time must be above 0 and up to {longest / 3600:g}h, such as 10m.",
            param_hint="--for",
        )
    return int((time.time() + seconds) * 1000)
