"""`bus doctor`: what is here, what would be used, and does it answer."""

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

from bus.cli.errors import exit_code
from bus.cli.output import print_json, table_console
from bus.errors import BusError
from bus.operations.brokers.docker import engine_answers
from bus.operations.brokers.installation import find_installation, versions
from bus.operations.brokers.select import BrokerChoice, broker_for, select_broker
from bus.settings import Settings, load_settings
from bus.transports.rabbitmq.handshake import BrokerInfo, probe

__all__ = ["command"]

CORE = (
    *(
        "trunkline",
        "aio-pika",
        "aiormq",
        "msgspec",
        "pydantic",
        "pydantic-settings",
        "pyjwt",
        "pynacl",
    ),
    *("structlog", "tenacity", "typer", "rich"),
)
EXTRAS = {
    "containers": ("testcontainers",),
    "depends": ("fast-depends",),
    "documents": ("python-docx", "reportlab"),
    "encryption": ("joserfc",),
    "faststream": ("faststream",),
    "reload": ("watchfiles",),
    "transcription": ("pocketsphinx", "numpy", "soundfile", "soxr", "httpx"),
    "whisper": ("faster-whisper",),
}


NEEDED: dict[str, tuple[str, ...]] = {"on": ("key", "jwks", "grants"), "dev": ("key",), "off": ()}
"""What a service does not start without, by `BUS_AUTH`."""
SECURITY = {
    "on": "each message is signed and checked",
    "dev": "BUS_AUTH=dev: all services have one secret",
    "off": "BUS_AUTH=off: nothing is signed, and anyone can speak for anyone",
}


@dataclass(kw_only=True)
class Report:
    """Everything that the doctor found; `exit_code` 0 means that the bus can work here, once a service has the `missing` settings."""

    python: str = field(default_factory=platform.python_version)
    packages: dict[str, str | None] = field(default_factory=dict)
    extras: dict[str, dict[str, str | None]] = field(default_factory=dict)
    rabbitmq: dict[str, str] | None = None
    container_engine: bool = False
    settings: str = "valid"
    security: str | None = None
    missing: list[str] = field(default_factory=list)
    broker: str | None = None
    why: str | None = None
    server: dict[str, str] | None = None
    problems: list[str] = field(default_factory=list)
    exit_code: int = 0

    def failed(self, error: BusError) -> None:
        """Note a problem; the first one decides the exit code."""
        self.problems.append(str(error))
        self.exit_code = self.exit_code or exit_code(error)


def command(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="On one line, for programs.")] = False,
    start: Annotated[
        bool,
        typer.Option(
            "--start", help="Start the broker that would be started, and connect to it (about 5 s)."
        ),
    ] = False,
) -> None:
    """Show what is installed, which broker would be used and why, and whether it answers.

    Exit code 0: the bus can work here. Otherwise the first problem's code, as for every command.
    """
    console = table_console()
    with console.status("looking"):
        report = asyncio.run(examine(os.environ, start=start))
    if as_json:
        print_json(asdict(report), compact=True)
    else:
        show(report, console)
    raise typer.Exit(report.exit_code)


async def examine(environment: Mapping[str, str], *, start: bool) -> Report:
    """Look at everything; what is wrong is in the report, never raised."""
    report = Report(
        packages=installed(CORE), extras={name: installed(parts) for name, parts in EXTRAS.items()}
    )
    if installation := find_installation(environment):
        report.rabbitmq = {"server": str(installation.server), **versions(installation)}
    report.container_engine = await asyncio.to_thread(engine_answers, environment)
    settings: Settings | None = None
    try:
        settings = load_settings()
        report.missing = [
            f"BUS_{name.upper()}"
            for name in NEEDED[settings.auth]
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
    """Talk to the broker that is named, or to one that was started for this."""
    broker = broker_for(choice)
    if choice.kind == "named":
        report.server = await server(
            settings.address if settings else broker.url
        )  # with the authorities, and a password's file
    elif start:
        try:
            await broker.start()
            report.server = await server(broker.url)
        finally:
            await broker.stop()


async def server(url: str) -> dict[str, str]:
    """What it says of itself."""
    found: BrokerInfo = await probe(url)
    return asdict(found)


def installed(names: Iterable[str]) -> dict[str, str | None]:
    """Distribution to version, None where it is not installed."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def show(report: Report, console: Console) -> None:
    """The report for a person."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows(report):
        table.add_row(name, value)
    console.print(table)
    for problem in report.problems:
        console.print("problem:", style="bold red", end=" ")
        console.print(problem, markup=False, highlight=False, soft_wrap=True)
    if not report.problems:
        said = (
            ("well, but no service starts without its keys", "yellow")
            if report.missing
            else ("all is well", "green")
        )
        console.print(said[0], style=said[1])


def security(report: Report) -> str:
    """Who believes whom, and what a service needs for it."""
    missing = (
        f"; not set: {', '.join(report.missing)} (`bus keys new SERVICE` says what to set)"
        if report.missing
        else ""
    )
    return f"{report.security or 'not known'}{missing}"


def rows(report: Report) -> Iterable[tuple[str, str]]:
    """Name and finding, in the order of use."""
    yield "python", report.python
    yield "packages", together(report.packages)
    for name, parts in report.extras.items():
        missing = [part for part, found in parts.items() if not found]
        yield (
            f"extra {name}",
            f"no: pip install 'trunkline\\[{name}]'" if missing else together(parts),
        )
    rabbitmq = report.rabbitmq
    yield (
        "rabbitmq-server",
        f"{rabbitmq['rabbitmq']} on Erlang {rabbitmq['erlang']}, {rabbitmq['server']}"
        if rabbitmq
        else "no",
    )
    yield "container engine", "answers" if report.container_engine else "no"
    yield "settings", report.settings
    yield "security", security(report)
    yield "broker", f"{report.broker}: {report.why}" if report.broker else "none"
    yield "connection", connection(report)


def connection(report: Report) -> str:
    """Whether the broker answers, in a few words."""
    if report.server:
        return f"{report.server['product']} {report.server['version']} ({report.server['platform']}), {report.server['cluster']}"
    return (
        "failed"
        if report.problems
        else "not tried: it is started when it is needed (--start tries)"
    )


def together(parts: Mapping[str, str | None]) -> str:
    """Several distributions in one line."""
    return ", ".join(f"{name} {found or 'missing'}" for name, found in parts.items())
