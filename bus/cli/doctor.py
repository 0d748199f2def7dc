"""`bus doctor`: a check of the installation, the settings and the broker."""

import asyncio
import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus.cli.env_file import EnvFile, current_file, describe_file
from bus.cli.errors import exit_code
from bus.cli.output import print_json, table_console
from bus.errors import BusError
from bus.messaging.escaped_text import one_line
from bus.operations.brokers.docker import engine_answers
from bus.operations.brokers.installation import find_installation, versions
from bus.operations.brokers.select import BrokerChoice, broker_for, select_broker
from bus.settings import Settings, load_settings
from bus.settings.variables import describe_unknown_variables
from bus.transports.rabbitmq.handshake import BrokerInfo, probe

__all__ = ["command"]

CORE = (
    "trunkline",
    "aio-pika",
    "aiormq",
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
    "reload": ("watchfiles",),
    "testing": ("pytest", "pytest-asyncio"),
    "transcription": ("pocketsphinx", "numpy", "soundfile", "soxr", "httpx"),
    "whisper": ("faster-whisper",),
}
"""Distributions that each extra of `trunkline` installs."""
REQUIRED_SETTINGS: dict[str, tuple[str, ...]] = {
    "on": ("key", "jwks", "grants"),
    "dev": ("key",),
    "off": (),
}
"""Settings that a service requires to start, for each value of `BUS_AUTH`."""
SECURITY = {
    "on": "each message is signed and verified",
    "dev": "BUS_AUTH=dev: all services share one secret",
    "off": "BUS_AUTH=off: messages are not signed, and any client can act as any service",
}


@dataclass(kw_only=True)
class Report:
    """Findings of the doctor.

    `missing` names the settings that a service requires and that are not set. `unknown` describes
    variables that look like settings and are not. Neither counts as a problem, so `exit_code` can
    be 0.
    """

    python: str = field(default_factory=platform.python_version)
    packages: dict[str, str | None] = field(default_factory=dict)
    extras: dict[str, dict[str, str | None]] = field(default_factory=dict)
    rabbitmq: dict[str, str] | None = None
    container_engine: bool = False
    env_file: EnvFile | None = None
    settings: str = "valid"
    unknown: list[str] = field(default_factory=list)
    security: str | None = None
    missing: list[str] = field(default_factory=list)
    broker: str | None = None
    why: str | None = None
    server: dict[str, str] | None = None
    problems: list[str] = field(default_factory=list)
    exit_code: int = 0

    def failed(self, error: BusError) -> None:
        """Add a problem. The first problem determines the exit code."""
        self.problems.append(str(error))
        self.exit_code = self.exit_code or exit_code(error)


def command(
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
    whether the broker answers. The exit code is 0 if there is no problem. If there are problems,
    it is the exit code of the first problem.
    """
    console = table_console()
    with console.status("checking"):
        report = asyncio.run(examine(os.environ, start=start))
    if as_json:
        print_json(asdict(report), compact=True)
    else:
        print_report(report, console)
    raise typer.Exit(report.exit_code)


async def examine(environment: Mapping[str, str], *, start: bool) -> Report:
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
        report.missing = [
            f"BUS_{name.upper()}"
            for name in REQUIRED_SETTINGS[settings.auth]
            if getattr(settings, name) is None
        ]
        report.security = SECURITY[settings.auth]
    except BusError as error:
        report.settings = "wrong"
        report.failed(error)
    try:
        choice = select_broker(environment)
        report.broker, report.why = choice.kind, choice.why
        await connect(choice, settings, report, start=start)
    except BusError as error:
        report.failed(error)
    return report


async def connect(
    choice: BrokerChoice, settings: Settings | None, report: Report, *, start: bool
) -> None:
    """Connect to the broker, and add its answer to the report.

    If `BUS_URL` is set, connect to that broker. If it is not set and `start` is True, start a
    broker, connect to it, and stop it.
    """
    broker = broker_for(choice)
    if choice.kind == "named":
        # Prefer the settings' address: it includes the certificate authorities and the password
        # from the password file.
        report.server = await probe_server(settings.address if settings else broker.url)
    elif start:
        try:
            await broker.start()
            report.server = await probe_server(broker.url)
        finally:
            await broker.stop()


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


def print_report(report: Report, console: Console) -> None:
    """Print the report as a table, with the problems below it."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows(report):
        table.add_row(name, Text(one_line(value)))
    console.print(table)
    for problem in report.problems:
        console.print("problem:", style="bold red", end=" ")
        console.print(problem, markup=False, highlight=False, soft_wrap=True)
    if not report.problems:
        verdict = (
            ("no problems, but a service does not start without the missing settings", "yellow")
            if report.missing
            else ("no problems found", "green")
        )
        console.print(verdict[0], style=verdict[1])


def security(report: Report) -> str:
    """Return text that describes how messages are signed and names the missing settings."""
    missing = (
        f"; not set: {', '.join(report.missing)} (`bus keys new SERVICE` creates keys)"
        if report.missing
        else ""
    )
    return f"{report.security or 'unknown'}{missing}"


def rows(report: Report) -> Iterable[tuple[str, str]]:
    """Yield the rows of the table: the name of a check and its result."""
    yield "python", report.python
    yield "packages", join_versions(report.packages)
    for name, parts in report.extras.items():
        missing = [part for part, installed in parts.items() if not installed]
        yield (
            f"extra {name}",
            f"not installed: pip install 'trunkline[{name}]'" if missing else join_versions(parts),
        )
    rabbitmq = report.rabbitmq
    yield (
        "rabbitmq-server",
        f"{rabbitmq['rabbitmq']} on Erlang {rabbitmq['erlang']}, {rabbitmq['server']}"
        if rabbitmq
        else "not found",
    )
    yield "container engine", "answers" if report.container_engine else "does not answer"
    yield from (("env file", line) for line in describe_file(report.env_file))
    yield "settings", "; ".join((report.settings, *report.unknown))
    yield "security", security(report)
    yield "broker", f"{report.broker}: {report.why}" if report.broker else "none"
    yield "connection", connection(report)


def connection(report: Report) -> str:
    """Return the result of the connection test: the broker's version, or `failed`, or a hint."""
    if server := report.server:
        product = f"{server['product']} {server['version']}"
        return f"{product} ({server['platform']}), {server['cluster']}"
    return (
        "failed"
        if report.problems
        else "not checked, because BUS_URL is not set. Use --start to start a broker and check it."
    )


def join_versions(parts: Mapping[str, str | None]) -> str:
    """Return the distributions and their versions on one line."""
    return ", ".join(f"{name} {installed or 'missing'}" for name, installed in parts.items())
