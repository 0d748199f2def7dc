"""`bus wait`: wait until a service is ready."""

import asyncio
from typing import Annotated

import typer

from bus.cli.broker_name import name_broker
from bus.cli.options import finite
from bus.cli.output import say, suppress_library_logs
from bus.errors import BusError, ConfigurationError, DeadlineExceeded, Unavailable
from bus.messaging.control import ALL, Ping
from bus.messaging.escaped_text import one_line
from bus.messaging.plurals import count_noun
from bus.messaging.suggestions import did_you_mean
from bus.runtime.discovery.asker import Asker
from bus.runtime.discovery.live_view import LiveInstance
from bus.runtime.discovery.open_asker import open_asker
from bus.runtime.discovery.service_wait import Requirement, ServiceWait
from bus.settings import Settings, load_settings

__all__ = ["command", "wait_until_ready"]

RECONNECT_SECONDS = 0.5
"""Seconds between two attempts to connect to a broker that has not started."""
MAX_HINT_SECONDS = 1.0
"""Maximum seconds of the timeout in which the command searches for a similar name."""
QUIET_SECONDS = 2.0
"""Seconds of a wait after which the command reports what it waits for."""


def command(
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE|TYPE",
            help="A service, or a type that it must serve, such as transcription.get.v1.",
        ),
    ],
    *,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, callback=finite, metavar="SECONDS", help="Maximum time to wait."),
    ] = 60,
    version: Annotated[
        str | None,
        typer.Option(
            metavar="VERSION",
            show_default=False,
            help="Wait for instances with this BUS_SERVICE_VERSION. Default: any version.",
        ),
    ] = None,
    instances: Annotated[
        int,
        typer.Option(min=1, max=10_000, metavar="NUMBER", help="Number of instances to wait for."),
    ] = 1,
) -> None:
    """Wait until a service is ready: exit code 0 if ready, 75 after the timeout.

    A service is ready if every consumer of one of its instances is registered at the broker. With a
    type, the instance must also serve this type. The command can start before the broker and before
    the service. Use it in scripts, and in containers that need a service.
    """
    requirement = Requirement.parse(service, version=version, instances=instances)
    with suppress_library_logs():
        ready = asyncio.run(wait_until_ready(load_settings(), requirement, timeout))
    typer.echo(one_line(describe_ready(requirement, ready)))


async def wait_until_ready(
    settings: Settings, requirement: Requirement, timeout: float
) -> list[LiveInstance]:
    """Return the required instances when they are ready.

    Raises:
        DeadlineExceeded: They are not ready within `timeout` seconds.
        PermissionDenied: The command has no right to ask the service.
        FailedPrecondition: `BUS_DISCOVERY` is off, or a key or the grants are missing or invalid.
        Unauthenticated: The broker refused the user name or the password.
    """
    if settings.discovery == "off":
        raise ConfigurationError(
            "BUS_DISCOVERY is off, so this command cannot ask services. Set BUS_DISCOVERY=on."
        )
    wait, deadline = ServiceWait(requirement), asyncio.get_running_loop().time() + timeout
    reporting = asyncio.ensure_future(report(requirement, wait))
    hint = ""
    try:
        async with asyncio.timeout_at(deadline):
            while True:
                wait.error = Unavailable(f"{name_broker(settings)} has not answered yet")
                try:
                    async with open_asker(settings) as asker:
                        wait.error = None
                        try:
                            # The end of the timeout is for a question for similar names.
                            async with asyncio.timeout_at(deadline - hint_seconds(timeout)):
                                return await wait.run(asker)
                        except TimeoutError:
                            hint = await find_similar(asker, requirement.service, timeout)
                            raise
                except Unavailable as error:  # the broker has not started yet
                    wait.error = error
                await asyncio.sleep(RECONNECT_SECONDS)
    except TimeoutError:
        raise DeadlineExceeded(
            f"{requirement.subject}: not ready within {timeout:g} s: {wait.describe()}"
            f"{hint or ('.' if wait.error else check_advice(settings))}"
        ) from None
    finally:
        reporting.cancel()


def check_advice(settings: Settings) -> str:
    """Return the end of the error about a service that is not ready: what to check."""
    return f". Check that its workers run, and that they use {name_broker(settings)}."


def hint_seconds(timeout: float) -> float:
    """Return the part of the timeout in which the command searches for a similar name."""
    return min(MAX_HINT_SECONDS, timeout / 4)


async def find_similar(asker: Asker, service: str, timeout: float) -> str:
    """Return a hint with the live services that have a similar name, or an empty text."""
    try:
        answers = await asker.ask(Ping(), ALL, window=hint_seconds(timeout) / 2)
    except BusError:
        return ""
    names = {answer.record.service for answer in answers}
    return "" if service in names else did_you_mean(service, names)


async def report(requirement: Requirement, wait: ServiceWait) -> None:
    """Print a line when a wait becomes long, and when its reason changes. Never return."""
    said = None
    while True:
        await asyncio.sleep(QUIET_SECONDS)
        reason = wait.describe()
        if reason != said:
            say(f"waiting for {requirement.subject}: {reason}")
            said = reason


def describe_ready(requirement: Requirement, ready: list[LiveInstance]) -> str:
    """Return the line about instances that are ready."""
    versions = sorted({each.record.version for each in ready if each.record.version})
    version = f", version {' and '.join(versions)}" if versions else ""
    return f"{requirement.subject} is ready: {count_noun(len(ready), 'instance')}{version}"
