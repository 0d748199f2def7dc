"""Tests of examples/monitoring on a real Prometheus, which reads real services and RabbitMQ."""

import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from bus.operations.brokers.installation import Installation
from tests.integration.monitored_system import MONITORING, System, running_system
from tests.prometheus import needs_prometheus, query_of
from tests.promql import selectors

pytestmark = needs_prometheus

DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
VALUES = {
    "$__rate_interval": "30s",
    "$__range": "5m",
    "${service}": "(grocer|till)",
    "$service": "(grocer|till)",
    "$operation": ".*",
}
"""Values that Grafana puts into a query."""
OPERATIONS = [
    *("grocer.count", "grocer.order", "grocer.pack", "grocer.packed", "grocer.price"),
    *("grocer.weigh", "till.sell"),
]
FIRED = ("TrunklineDeadLettersAppeared", "TrunklineOldVersionUsed")
"""Alerts that fire at once in this system."""
OF_A_STORE = re.compile("trunkline_(jobs|store)_|stale_commits|consumers_paused")
"""Series of a service with a durable store, or of a pause. The services of this system have
neither."""


@pytest.fixture(scope="module")
def system(
    installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    with running_system(installation, tmp_path_factory.mktemp("monitoring")) as system:
        yield system


def filled(query: str) -> str:
    """Replace the variables of Grafana."""
    for name, value in VALUES.items():
        query = query.replace(name, value)
    assert "$_" not in query
    return query


def queries_of_panels() -> dict[str, str]:
    return {
        f"{panel['title']} {target['refId']}": filled(target["expr"])
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
        if not OF_A_STORE.search(target["expr"])
    }


def series_of_operations(name: str) -> dict[str, str]:
    """Return a selector of each operation's series of a metric."""
    return {each: f'{name}{{operation="{each}"}}' for each in OPERATIONS}


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for name in ("recording", "alerts")
        for group in yaml.safe_load((MONITORING / f"rules/{name}.yml").read_text())["groups"]
        for rule in group["rules"]
    ]


def test_each_query_of_the_dashboard_has_a_value(system: System) -> None:
    assert system.missing(queries_of_panels()) == {}


def test_each_series_that_a_rule_reads_has_a_value(system: System) -> None:
    unused = 'version="([3-9]|1[0-2])"'  # versions that the services do not have
    read = {
        f"{rule.get('alert') or rule['record']}: {selector.text}": selector.text
        for rule in rules()
        for selector in selectors(rule["expr"])
        if not re.search(unused, selector.text) and not OF_A_STORE.search(selector.text)
    }
    assert system.missing(read) == {}
    groups = system.prometheus.get("rules")["groups"]
    assert {
        rule["name"]: rule["health"]
        for group in groups
        for rule in group["rules"]
        if rule["health"] != "ok"
    } == {}


def test_the_alerts_fire_and_name_the_service_and_the_command(system: System) -> None:
    assert system.missing({name: f'ALERTS{{alertname="{name}"}}' for name in FIRED}) == {}
    alerts = {
        each["labels"]["alertname"]: each["annotations"]
        for each in system.prometheus.get("alerts")["alerts"]
    }
    dead = alerts["TrunklineDeadLettersAppeared"]
    assert dead["summary"] == "grocer moved messages of grocer.pack to the dead letters"
    assert "`bus dead list --service grocer`" in dead["description"]
    assert alerts["TrunklineOldVersionUsed"]["summary"] == (
        "till still sends version 1 of grocer.price"
    )


def test_the_queries_of_the_page_find_the_old_version_and_the_dead_letters(system: System) -> None:
    questions = ("Which services still call version 1", "Which messages became dead letters")
    queries = {question: query_of(question) for question in questions}
    assert system.missing(queries) == {}
    found = [
        {labels["operation"] for labels, _ in system.prometheus.query(query)}
        for query in queries.values()
    ]
    assert found == [{"grocer.price"}, {"grocer.pack"}]


def test_a_duration_leads_to_the_trace_of_one_message(system: System) -> None:
    name = "trunkline_messages_handler_duration_seconds_bucket"
    assert system.missing(series_of_operations(name)) == {}
    found = system.prometheus.get(
        "query_exemplars", query=name, start=str(time.time() - 300), end=str(time.time())
    )
    traces = {
        (series["seriesLabels"]["operation"], exemplar["labels"]["trace_id"])
        for series in found
        for exemplar in series["exemplars"]
    }
    assert {operation for operation, _ in traces} >= {"grocer.price", "till.sell"}
    assert all(re.fullmatch(r"[0-9a-f]{32}", trace_id) for _, trace_id in traces)


def test_the_variables_of_the_dashboard_offer_the_services_and_operations(system: System) -> None:
    # Each test makes its own data, because another test can run on another system.
    assert system.missing(series_of_operations("trunkline_messages_handled_total")) == {}
    offered = {}
    for variable in DASHBOARD["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert found, variable
        values = system.prometheus.get(f"label/{found[2]}/values", **{"match[]": filled(found[1])})
        offered[variable["name"]] = values
    assert offered["service"] == ["grocer", "till"]
    assert offered["operation"] == OPERATIONS
