"""The checks of `bus doctor` that need a router. No broker runs."""

import socket
from typing import Any

import pytest

from bus import Event, Job, Router, Settings, contract
from bus.cli import router_checks
from bus.cli.doctor_report import Report
from bus.cli.router_checks import check_health_port, check_routers
from bus.contracts.contract import Catalog
from bus.errors import TopologyMismatch
from bus.messaging.topology.model import Topology
from bus.operations.topology.diff import Difference, Plan

catalog = Catalog()
SERVER = {"product": "RabbitMQ", "version": "3.10.8", "cluster": "rabbit@here", "platform": "E"}


@contract("library.scan", version=1, catalog=catalog)
class Scan(Job[None]):
    pass


@contract("annex.opened", version=1, catalog=catalog)
class Opened(Event):
    pass


def library(timeout: float = 60) -> Router:
    router = Router("library")

    @router.job(Scan, timeout=timeout)
    async def scan(_job: Scan) -> None:
        pass

    return router


async def problems(router: Router, settings: Settings) -> list[str]:
    report = Report(server=SERVER)
    await check_routers([router], settings, report)
    assert bool(report.problems) == bool(report.exit_code)
    return report.problems


async def test_a_router_that_could_start_has_no_problem() -> None:
    assert await problems(library(), Settings()) == []


async def test_a_router_without_handlers_is_a_problem() -> None:
    (problem,) = await problems(Router("library"), Settings())
    assert problem.startswith("library: the router has no handlers.")


async def test_a_timeout_above_the_consumer_timeout_is_a_problem() -> None:
    (problem,) = await problems(library(timeout=7200), Settings())
    assert "BUS_CONSUMER_TIMEOUT" in problem


async def test_an_exchange_that_an_administrator_must_create_is_a_problem(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def verify(*_arguments: Any) -> Plan:
        missing = Difference(verdict="missing", what="exchange", name="bus.jobs")
        return Plan(differences=(missing,), missing=Topology())

    monkeypatch.setattr(router_checks, "verify_by_amqp", verify)
    (problem,) = await problems(library(), Settings(topology="verify"))
    assert "library: the broker does not have exchange bus.jobs." in problem


async def test_a_queue_with_other_arguments_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    async def check(*_arguments: Any) -> None:
        raise TopologyMismatch("different queue library.jobs.scan.v1")

    monkeypatch.setattr(router_checks, "check_policies", check)
    assert await problems(library(), Settings()) == ["different queue library.jobs.scan.v1"]


def test_a_health_port_that_another_process_uses_is_a_warning() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        report = Report()
        check_health_port(Settings(health_host="127.0.0.1", health_port=port), report)
        (warning,) = report.warnings
        assert (
            f"port {port} of BUS_HEALTH_PORT cannot be opened (Address already in use)" in warning
        )
        assert report.exit_code == 0
    report = Report()
    check_health_port(Settings(), report)
    assert report.warnings == []
