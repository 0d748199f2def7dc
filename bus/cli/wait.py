"""`bus wait`: wait until a service is ready."""

import asyncio
from contextlib import suppress
from typing import Annotated

import typer

from bus.cli.options import finite
from bus.cli.output import say, suppress_library_logs
from bus.cli.sender import AsAsker
from bus.errors import (
    BusError,
    ConfigurationError,
    ContractError,
    DeadlineExceeded,
    PermissionDenied,
    Unavailable,
)
from bus.messaging.control import ALL, Ping, Target
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
SILENCE = (
    ". Check that its workers run, that they use the broker in BUS_URL, and that they have "
    "BUS_AUTH={auth} as this command has."
)
CHECK_RIGHT = " Check that the key of this command has the right to call this service, or to read."
PING_SECONDS = 0.2
"""Seconds to find out whether the command may ask if a service is alive."""
WITHOUT_TYPE = "wait for the service without the type: `bus wait {}`."
"""Remedy for a command without the right to read."""
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
    all_: Annotated[
        bool,
        typer.Option(
            "--all", help="With --version, wait also until no instance of another version is live."
        ),
    ] = False,
    as_service: AsAsker = None,
) -> None:
    """Wait until a service is ready: exit code 0 if ready, 75 after the timeout.

    A service is ready if every consumer of one of its instances is registered at the broker. With a
    type, the instance must also serve this type. The command can start before the broker and before
    the service. Use it in scripts, and in containers that need a service.

    With BUS_AUTH=on the command asks with the key of an operator or of a service. A service that
    may call the other one may also wait for it. With a type, the key needs the right to read.
    """
    if all_ and version is None:
        raise ContractError("--all needs a version. Add --version with the version that stays.")
    requirement = Requirement.parse(service, version=version, instances=instances, all_=all_)
    with suppress_library_logs():
        ready, others = asyncio.run(
            wait_until_ready(load_settings(), requirement, timeout, as_service=as_service)
        )
    typer.echo(one_line(describe_ready(requirement, ready, others)))


async def wait_until_ready(
    settings: Settings, requirement: Requirement, timeout: float, *, as_service: str | None = None
) -> tuple[list[LiveInstance], list[LiveInstance]]:
    """Return the required instances when they are ready, and the live ones of other versions.

    Args:
        settings: Settings of the connection and of the keys.
        requirement: The required instances.
        timeout: Maximum seconds to wait.
        as_service: The service that asks. None: the operator, or the owner of `BUS_KEY`.

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
                wait.error = Unavailable("the broker in BUS_URL has not answered yet")
                try:
                    async with open_asker(settings, service=as_service) as asker:
                        wait.error = None
                        try:
                            # The end of the timeout is for a question for similar names.
                            async with asyncio.timeout_at(deadline - hint_seconds(timeout)):
                                return await wait.run(asker), wait.others()
                        except PermissionDenied as error:
                            raise await explain_denial(asker, requirement, error) from None
                        except TimeoutError:
                            hint = await find_hint(asker, requirement, wait, timeout)
                            raise
                except Unavailable as error:  # the broker has not started yet
                    wait.error = error
                await asyncio.sleep(RECONNECT_SECONDS)
    except TimeoutError:
        raise DeadlineExceeded(
            f"{requirement.subject}: not ready within {timeout:g} s: "
            f"{hint or wait.describe() + remedy(requirement, wait, settings)}"
        ) from None
    finally:
        reporting.cancel()


def hint_seconds(timeout: float) -> float:
    """Return the part of the timeout in which the command searches for a similar name."""
    return min(MAX_HINT_SECONDS, timeout / 4)


async def explain_denial(
    asker: Asker, requirement: Requirement, error: PermissionDenied
) -> PermissionDenied:
    """Return the error of a command without the right to read.

    If the command may ask whether the service is alive, the error names a wait without the type.
    """
    if requirement.operation is None:
        return error
    try:
        await asker.ask(Ping(), Target(requirement.service), window=PING_SECONDS, expected=1)
    except BusError:
        return error
    reason = str(error).rstrip(".")
    return PermissionDenied(
        f"{requirement.subject}: {reason}. Or {WITHOUT_TYPE.format(requirement.service)}"
    )


async def find_hint(
    asker: Asker, requirement: Requirement, wait: ServiceWait, timeout: float
) -> str:
    """Return a reason for a wait without answers, with a remedy. Return "" for other reasons."""
    window = hint_seconds(timeout) / 2
    if requirement.operation is not None and not wait.live():
        with suppress(BusError):
            target = Target(requirement.service)
            if alive := len(await asker.ask(Ping(), target, window=window / 2)):
                return (
                    f"{count_noun(alive, 'instance')} of {requirement.service} "
                    f"{'is' if alive == 1 else 'are'} alive, but no instance answered the question "
                    "for its contracts. Grant the right to read to the key of this command, or "
                    f"{WITHOUT_TYPE.format(requirement.service)}"
                )
    similar = await find_similar(asker, requirement.service, window)
    return f"{wait.describe()}{similar}" if similar else ""


async def find_similar(asker: Asker, service: str, window: float) -> str:
    """Return a hint with the live services that have a similar name, or an empty text."""
    try:
        answers = await asker.ask(Ping(), ALL, window=window)
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


def remedy(requirement: Requirement, wait: ServiceWait, settings: Settings) -> str:
    """Return the end of the error of a wait: the advice that fits the instances that were seen."""
    live, version = wait.live(), requirement.version
    if wait.error or not live:
        return "." if wait.error else remedy_for_silence(settings)
    fitting = [each for each in live if version in {None, each.record.version}]
    if not fitting:
        return f". Start instances with BUS_SERVICE_VERSION={version}, or correct --version."
    if not any(requirement.serves(each) for each in fitting):
        return ". Check the type, or start instances with a router that serves it."
    if len(wait.accepted()) >= requirement.instances:
        return ". Stop the instances of other versions, or leave --all out."
    if any(each.state != "ready" for each in fitting):
        return f". Look at `bus services {requirement.service}` and at the log of these instances."
    return ". Start more instances, or correct --instances."


def remedy_for_silence(settings: Settings) -> str:
    """Return the advice for a service of which no instance answered."""
    right = CHECK_RIGHT if settings.auth == "on" else ""
    return f"{SILENCE.format(auth=settings.auth)}{right}"


def describe_ready(
    requirement: Requirement, ready: list[LiveInstance], others: list[LiveInstance]
) -> str:
    """Return the line about instances that are ready, and about those of other versions."""
    text = f"{requirement.subject} is ready: {count_noun(len(ready), 'instance')}{versions(ready)}"
    if others:
        return f"{text}; also live: {count_noun(len(others), 'instance')}{versions(others)}"
    return text


def versions(instances: list[LiveInstance]) -> str:
    """Return the versions of instances after a comma, or an empty text if they have none."""
    found = sorted({each.record.version for each in instances if each.record.version})
    return f", version {' and '.join(found)}" if found else ""
