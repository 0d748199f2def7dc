"""Report of `bus doctor`: the findings, and their output."""

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus.cli.env_file_names import EnvFile, describe_file
from bus.cli.errors import exit_code
from bus.errors import BusError
from bus.messaging.escaped_text import one_line

__all__ = ["OTHER_SERVICES", "Report", "print_report"]

OTHER_SERVICES = "other services"
"""Name of the policy for services without a configuration. No service has a name with a space."""

SECURITY = {
    "on": "each message is signed and verified",
    "dev": "BUS_AUTH=dev: all services share one secret",
    "off": "BUS_AUTH=off: messages are not signed, and any client can act as any service",
}


CREATE_KEYS = "Create keys with `bus keys new SERVICE`, and set the variables that it prints."
REMEDIES = {
    "BUS_KEY": CREATE_KEYS,
    "BUS_JWKS": CREATE_KEYS,
    "BUS_GRANTS": "Write a grants file (see `bus grants --help`), and set BUS_GRANTS to its path.",
}
"""Instruction for each setting that can be missing."""


@dataclass(kw_only=True)
class Report:
    """Findings of the doctor.

    `missing` names the settings that a service requires and that are not set. `unknown` describes
    variables that look like settings and are not. `problems` has the other reasons for which a
    service could not start. `warnings` has what needs attention and prevents no start, such as one
    of several hosts that does not answer.
    """

    python: str = field(default_factory=platform.python_version)
    packages: dict[str, str | None] = field(default_factory=dict)
    extras: dict[str, dict[str, str | None]] = field(default_factory=dict)
    rabbitmq: dict[str, str] | None = None
    container_engine: bool = False
    env_file: EnvFile | None = None
    settings: str = "valid"
    unknown: list[str] = field(default_factory=list)
    auth: str | None = None
    security: str | None = None
    missing: list[str] = field(default_factory=list)
    services: dict[str, bool] = field(default_factory=dict)
    """The checked services. True if the settings allow the service to start."""
    calls: dict[str, list[str]] = field(default_factory=dict)
    """The configured services that this process calls, each with its values and their sources."""
    defaults: list[str] = field(default_factory=list)
    """The values for the calls to all services, with their sources."""
    policies: dict[str, str] = field(default_factory=dict)
    """The policies that apply to the calls to each configured service, and to other services."""
    stores: dict[str, str] = field(default_factory=dict)
    """The durable store, or the store of each checked service, each with its condition."""
    broker: str | None = None
    why: str | None = None
    server: dict[str, str] | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    exit_code: int = 0

    @property
    def has_wrong_url(self) -> bool:
        """True if the error of the settings names `BUS_URL`."""
        return any(
            problem.startswith("settings: ") and "BUS_URL" in problem for problem in self.problems
        )

    def record_auth(self, auth: str) -> None:
        """Record the value of `BUS_AUTH`."""
        self.auth, self.security = auth, SECURITY[auth]

    def record_missing(self, settings: list[str]) -> None:
        """Record the settings that are not set."""
        self.missing = settings
        if settings:
            self.exit_code = self.exit_code or os.EX_CONFIG

    def record_problem(self, error: BusError) -> None:
        """Add a problem. The first problem determines the exit code."""
        self.problems.append(str(error))
        self.exit_code = self.exit_code or exit_code(error)


def print_report(report: Report, console: Console) -> None:
    """Print the report as a table, with the problems below it."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows(report):
        table.add_row(name, Text(one_line(value)))
    console.print(table)
    if report.missing:
        console.print("missing:", style="bold yellow", end=" ")
        console.print(describe_missing(report), markup=False, highlight=False, soft_wrap=True)
    for problem in report.problems:
        console.print("problem:", style="bold red", end=" ")
        console.print(problem, markup=False, highlight=False, soft_wrap=True)
    for warning in report.warnings:
        console.print("warning:", style="bold yellow", end=" ")
        console.print(warning, markup=False, highlight=False, soft_wrap=True)
    if not report.missing and not report.problems:
        console.print("no problems found", style="green")


def describe_missing(report: Report) -> str:
    """Return the missing settings, and the commands that help to set them."""
    names = " and ".join(filter(None, [", ".join(report.missing[:-1]), report.missing[-1]]))
    verb = "is" if len(report.missing) == 1 else "are"
    if report.auth == "dev":
        remedies = ["Set it to the same secret text of at least 32 bytes for all services."]
    else:
        remedies = [remedy for name, remedy in REMEDIES.items() if name in report.missing]
        remedies.append("For a first try, set BUS_AUTH=off instead.")
    unique = " ".join(dict.fromkeys(remedies))
    return f"{names} {verb} not set, so a service cannot start. {unique}"


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
    yield "security", report.security or "unknown"
    for service, can_start in report.services.items():
        yield f"service {service}", "its keys and grants are valid" if can_start else "cannot start"
    for service, values in report.calls.items():
        yield f"calls to {service}", ", ".join(values) or "no value is set"
    if report.defaults:
        yield "defaults of calls", ", ".join(report.defaults)
    for service, policy in report.policies.items():
        is_default = service == OTHER_SERVICES
        yield "policy by default" if is_default else f"policy for {service}", policy
    yield from report.stores.items()
    yield "broker", f"{report.broker}: {report.why}" if report.broker else "none"
    yield "connection", connection(report)


def connection(report: Report) -> str:
    """Return the result of the connection test: the broker's version, or `failed`, or a hint."""
    if server := report.server:
        product = f"{server['product']} {server['version']}"
        return f"{product} ({server['platform']}), {server['cluster']}"
    is_checked = report.settings == "valid" or (
        report.broker == "named" and not report.has_wrong_url
    )
    return "failed" if is_checked else "not checked, because the settings are wrong"


def join_versions(parts: Mapping[str, str | None]) -> str:
    """Return the distributions and their versions on one line."""
    return ", ".join(f"{name} {installed or 'missing'}" for name, installed in parts.items())
