"""`bus doctor`: a check of the installation, the settings and the broker."""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from bus.cli.doctor_report import OTHER_SERVICES, Report, print_report
from bus.cli.doctor_store import examine_stores
from bus.cli.env_file import current_file
from bus.cli.output import print_json, suppress_library_logs, table_console
from bus.cli.policy_text import describe_policy
from bus.cli.router_checks import check_health_port, check_routers, routers_in
from bus.cli.start_checks import (
    ServiceContracts,
    check_services,
    list_missing_settings,
    resolve_services,
)
from bus.errors import BusError, ConfigurationError, Unavailable
from bus.messaging.broker_addresses import require_urls
from bus.messaging.variable_values import environment_value
from bus.operations.broker_alarms import describe_alarms
from bus.operations.brokers.docker import engine_answers
from bus.operations.brokers.installation import find_installation, versions
from bus.operations.brokers.select import BrokerChoice, broker_for, select_broker
from bus.operations.topology.broker_state import management_of
from bus.runtime.router import Router
from bus.settings import Settings, load_settings
from bus.settings.service_registry import ServiceRegistry
from bus.settings.variables import describe_unknown_variables
from bus.transports.rabbitmq.handshake import BrokerInfo, probe

__all__ = ["command"]

CORE = (
    "trunkline",
    "aio-pika",
    "aiormq",
    "h11",
    "msgspec",
    "pydantic",
    "pydantic-settings",
    "pyjwt",
    "pynacl",
    "python-dotenv",
    "structlog",
    "tenacity",
    "typer",
    "rich",
)
"""Distributions that the bus always requires."""
EXTRAS = {
    "containers": ("testcontainers",),
    "depends": ("fast-depends",),
    "documents": ("python-docx", "reportlab"),
    "faststream": ("faststream",),
    "metrics": ("prometheus-client",),
    "otel": ("opentelemetry-api",),
    "postgres": ("sqlalchemy", "alembic", "asyncpg"),
    "reload": ("watchfiles",),
    "store": ("sqlalchemy", "alembic", "aiosqlite"),
    "testing": ("pytest", "pytest-asyncio"),
    "transcription": ("pocketsphinx", "numpy", "soundfile", "soxr", "httpx"),
    "whisper": ("faster-whisper",),
}
"""Distributions that each extra of `trunkline` installs."""


def command(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SERVICE|MODULE:ROUTER",
            show_default=False,
            help="Services or routers. Check whether each could start. Default: the owner of "
            "BUS_KEY.",
        ),
    ] = None,
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON on one line, for programs.")
    ] = False,
    start: Annotated[
        bool,
        typer.Option(
            "--start", help="If BUS_URL is not set, start a broker and connect to it (about 5 s)."
        ),
    ] = False,
) -> None:
    """Check the installation, the settings and the broker.

    The report shows the broker that the commands would use, the reason for this choice, and
    whether the broker answers. The command reads the keys and grants as a service does at its
    start. For MODULE:ROUTER it also compares the router with the broker, and changes nothing. The
    exit code is 0 if a service could start. If not, it is the exit code of the first problem.
    Missing settings, such as BUS_KEY, have the exit code 78.
    """
    console = table_console()
    with console.status("checking"), suppress_library_logs():
        services = resolve_services(targets or [])
        routers = routers_in(targets or [])
        report = asyncio.run(examine(os.environ, services, routers, start=start))
    if as_json:
        print_json(asdict(report), compact=True)
    else:
        print_report(report, console)
    raise typer.Exit(report.exit_code)


async def examine(
    environment: Mapping[str, str],
    services: ServiceContracts,
    routers: Sequence[Router] = (),
    *,
    start: bool,
) -> Report:
    """Check everything, and return the report. A `BusError` is added to the report, not raised."""
    report = Report(
        packages=installed_versions(CORE),
        extras={name: installed_versions(parts) for name, parts in EXTRAS.items()},
    )
    if installation := find_installation(environment):
        report.rabbitmq = {"server": str(installation.server), **versions(installation)}
    report.container_engine = await asyncio.to_thread(engine_answers, environment)
    report.env_file, report.unknown = current_file(), describe_unknown_variables(environment)
    settings: Settings | None = None
    try:
        settings = load_settings()
        report.record_auth(settings.auth)
        record_calls(settings.registry, report)
        report.record_missing(list_missing_settings(settings))
    except BusError as error:
        report.settings = "wrong"
        report.record_problem(error)
    if settings and not report.missing:
        await check_services(settings, services, report)
    if settings:
        await examine_stores(settings, [*services], report)
    try:
        await examine_broker(environment, settings, report, start=start)
    except BusError as error:
        # The settings have reported a wrong BUS_URL already.
        if settings or not report.has_wrong_url:
            report.record_problem(error)
    if settings:
        check_health_port(settings, report)
    if settings and report.server and not start:
        await check_routers(routers, settings, report)
        if settings.management_url:
            report.warnings += await describe_alarms(management_of(settings))
    return report


def record_calls(registry: ServiceRegistry, report: Report) -> None:
    """Record what is configured for the calls to each service, and the policies that result."""
    report.calls = {each.name: registry.describe(each.name) for each in registry}
    report.defaults = registry.describe_defaults()
    policies = {**registry.policies(), OTHER_SERVICES: registry.default_policy()}
    report.policies = {name: describe_policy(policy) for name, policy in policies.items()}


async def examine_broker(
    environment: Mapping[str, str], settings: Settings | None, report: Report, *, start: bool
) -> None:
    """Choose a broker and connect to it. Add the choice and the answer to the report."""
    try:
        choice = select_broker(environment)
    except ConfigurationError:
        if environment_value(environment, "BUS_URL") or start or settings is None:
            raise
        # This machine cannot start a broker. A service needs only one that runs.
        with suppress(Unavailable):
            await probe_default(settings, report)
        if report.server is None:
            raise
        return
    report.broker, report.why = choice.kind, choice.why
    await connect(choice, settings, report, start=start)


async def connect(
    choice: BrokerChoice, settings: Settings | None, report: Report, *, start: bool
) -> None:
    """Connect to the broker, and add its answer to the report.

    If `BUS_URL` is set, connect to that broker. If it is not set and `start` is True, start a
    broker, connect to it, and stop it. If neither, connect to the default URL.
    """
    broker = broker_for(choice)
    if choice.kind == "named":
        if settings is None and report.has_wrong_url:
            return  # A refused parameter of the URL can name a file that blocks this process.
        # Prefer the settings' address: it includes the certificate authorities and the password
        # from the password file.
        await probe_hosts(settings.address if settings else broker.url, report)
    elif start:
        try:
            await broker.start()
            report.server = await probe_server(broker.url)
        finally:
            await broker.stop()
    elif settings is not None:
        await probe_default(settings, report)


async def probe_default(settings: Settings, report: Report) -> None:
    """Connect to the default URL, which a service uses if `BUS_URL` is not set."""
    try:
        report.server = await probe_server(settings.address)
    except Unavailable as error:
        raise Unavailable(
            "BUS_URL is not set, and no broker answers at its default, localhost:5672. Start one "
            "with `bus broker`, and export the BUS_URL that it prints. `bus doctor --start` checks "
            "whether this machine can start one."
        ) from error


async def probe_hosts(url: str, report: Report) -> None:
    """Connect to each host, and add the first answer and all problems to the report.

    A service starts if one host answers, so the others are then only warnings.
    """
    errors: list[BusError] = []
    for host in require_urls(url):
        try:
            server = await probe_server(host.text)
        except BusError as error:
            errors.append(error)
            continue
        report.server = report.server or server
        if server["cluster"] != report.server["cluster"]:
            report.record_problem(
                ConfigurationError(
                    f"host {host.place} belongs to the cluster {server['cluster']!r}, but an "
                    f"earlier host in BUS_URL to {report.server['cluster']!r}. List only nodes of "
                    "one cluster in BUS_URL."
                )
            )
    for unreachable in errors:
        if report.server is None:
            report.record_problem(unreachable)
        else:
            report.warnings.append(str(unreachable))


async def probe_server(url: str) -> dict[str, str]:
    """Connect to the broker, and return its product, version, platform and cluster."""
    info: BrokerInfo = await probe(url)
    return asdict(info)


def installed_versions(names: Iterable[str]) -> dict[str, str | None]:
    """Return the version of each distribution, or None if it is not installed."""
    result: dict[str, str | None] = {}
    for name in names:
        try:
            result[name] = version(name)
        except PackageNotFoundError:
            result[name] = None
    return result
