import asyncio
import os
from pathlib import Path

import pytest

from bus.cli.doctor import examine, probe_hosts, record_calls
from bus.cli.doctor_report import Report, rows
from bus.cli.doctor_store import examine_stores
from bus.settings import load_settings
from bus.storage.configured_store import store_administration
from tests.unit.transports.rabbitmq.broker_stub import Host, hosts


async def test_one_of_several_hosts_that_is_away_is_a_warning() -> None:
    first, second = Host(), Host()
    async with hosts(first, second) as url:
        await first.stop()
        report = Report()
        await probe_hosts(url, report)
    assert report.server is not None
    assert report.server["cluster"] == "one"
    (warning,) = report.warnings
    assert warning.startswith(f"the broker at {first.place} cannot be reached")
    assert (report.problems, report.exit_code) == ([], 0)


async def test_hosts_that_are_all_away_are_problems() -> None:
    first, second = Host(), Host()
    async with hosts(first, second) as url:
        await first.stop()
        await second.stop()
        report = Report()
        await probe_hosts(url, report)
    assert len(report.problems) == 2
    assert report.warnings == []
    assert report.exit_code != 0


async def test_a_wrong_url_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_URL", "http://localhost")
    report = await examine({"BUS_URL": "http://localhost"}, {}, start=False)
    (problem,) = report.problems
    assert "BUS_URL" in problem


async def test_a_url_with_a_refused_parameter_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(tmp_path / "pipe")  # OpenSSL would wait for its writer
    url = f"amqps://u:p@127.0.0.1:1/?cafile={tmp_path}/pipe"
    monkeypatch.setenv("BUS_URL", url)
    report = await asyncio.wait_for(examine({"BUS_URL": url}, {}, start=False), 20)
    (problem,) = report.problems
    assert problem.startswith("settings: BUS_URL: cafile is not allowed in the address.")


async def test_the_doctor_reports_a_host_of_another_cluster() -> None:
    first, second = Host(cluster="x"), Host(cluster="y")
    async with hosts(first, second) as url:
        report = Report()
        await probe_hosts(url, report)
    (problem,) = report.problems
    assert problem == (
        f"host {second.place} belongs to the cluster 'y', but an earlier host in BUS_URL to 'x'. "
        "List only nodes of one cluster in BUS_URL."
    )


async def test_the_doctor_shows_what_is_configured_for_each_called_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "services.toml"
    file.write_text("[services.billing]\ntimeout = 2.5\nretries = 3\n[services.office]\n")
    monkeypatch.setenv("BUS_AUTH", "off")
    monkeypatch.setenv("BUS_SERVICES_FILE", str(file))
    monkeypatch.setenv("BUS_SERVICES__BILLING__RETRIES", "0")
    report = await examine({}, {}, start=False)
    shown = {name: value for name, value in rows(report) if name.startswith("calls to ")}
    assert shown == {
        "calls to billing": f"timeout 2.5 s ({file}), retries 0 (BUS_SERVICES__BILLING__RETRIES)",
        "calls to office": "no value is set",
    }


def test_the_doctor_shows_the_policy_that_applies_to_each_called_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUS_SERVICES__BILLING__TIMEOUT", "2")
    monkeypatch.setenv("BUS_SERVICES__BILLING__RETRIES", "0")
    monkeypatch.setenv("BUS_SERVICES__BILLING__BREAKER", "off")
    monkeypatch.setenv("BUS_SERVICES__BILLING__MAX_IN_FLIGHT", "off")
    monkeypatch.setenv("BUS_SERVICE_DEFAULTS__ATTEMPT_TIMEOUT", "3")
    monkeypatch.setenv("BUS_SERVICE_DEFAULTS__BREAKER_SLOW_CALL", "1.5")
    report = Report()
    record_calls(load_settings().registry, report)
    shown = dict(rows(report))
    assert shown["defaults of calls"] == (
        "attempt_timeout 3 s (BUS_SERVICE_DEFAULTS__ATTEMPT_TIMEOUT), "
        "breaker_slow_call 1.5 s (BUS_SERVICE_DEFAULTS__BREAKER_SLOW_CALL)"
    )
    assert shown["policy for billing"] == (
        "attempt timeout off; retries at most 0, budget 0.2; breaker off; in flight without a "
        "limit; hedge off; cache on"
    )
    assert shown["policy by default"] == (
        "attempt timeout 3 s; retries at most 2, budget 0.2; breaker opens at 0.5 of failed calls "
        "or 0.5 of calls from 1.5 s (of 20 in 10 s) or 5 failures in a row, for 30 s to 300 s; in "
        "flight at most 1000, waiting at most 10000; hedge off; cache on"
    )


async def test_the_doctor_reports_a_misspelled_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("BUS_AUTH", "off")
    monkeypatch.setenv("BUS_SERVICES__DOCUMENTATOIN__TIMEOUT", "3")
    report = await examine({}, {"documentation": ()}, start=False)
    assert report.problems[0].startswith(
        "settings: BUS_SERVICES__DOCUMENTATOIN__TIMEOUT: the service 'documentatoin' is not known "
        "here; did you mean 'documentation'?"
    )
    assert report.services == {"documentation": False}


@pytest.mark.parametrize("services", [{}, {"shelf": ()}])
async def test_the_doctor_checks_the_store(tmp_path: Path, services: dict[str, tuple[()]]) -> None:
    settings = load_settings(auth="off", store=f"sqlite:///{tmp_path / 'jobs.db'}")
    name = "store of shelf" if services else "store"
    report = Report()
    await examine_stores(settings, services, report)
    assert "does not exist. Run `bus store upgrade` to create it" in report.problems[0]
    assert dict(rows(report))[name].endswith("jobs.db: cannot be used")
    assert report.exit_code == os.EX_CONFIG

    administration = store_administration(settings, "shelf")
    await administration.upgrade()
    await administration.close()
    report = Report()
    await examine_stores(settings, services, report)
    assert "jobs.db of shelf, revision 0001, id " in dict(rows(report))[name]
    assert (report.problems, report.exit_code) == ([], 0)


async def test_the_doctor_shows_that_a_service_has_no_durable_store() -> None:
    report = Report()
    await examine_stores(load_settings(auth="off"), (), report)
    assert dict(rows(report))["store"] == "memory: jobs are not stored"


async def test_the_doctor_checks_the_store_of_each_service(tmp_path: Path) -> None:
    settings = load_settings(auth="off", store=f"sqlite:///{tmp_path}/{{service}}.db")
    report = Report()
    await examine_stores(settings, ("shelf", "desk"), report)
    assert len(report.problems) == 2
    assert {"store of shelf", "store of desk"} <= {name for name, _ in rows(report)}
