"""Tests of the rules and queries in examples/monitoring with promtool."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.examples.page import followed
from tests.prometheus import needs_prometheus, query_of
from tests.promql import selectors

pytestmark = needs_prometheus

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/watch-with-grafana.md"
MONITORING = ROOT / "examples/monitoring"
RULES = MONITORING / "rules"
TESTS: dict[str, Any] = yaml.safe_load((RULES / "alerts_test.yml").read_text())
ALERTS, RECORDED = (
    {
        rule.get("alert") or rule["record"]: rule
        for group in yaml.safe_load((RULES / name).read_text())["groups"]
        for rule in group["rules"]
    }
    for name in ("alerts.yml", "recording.yml")
)


def promtool(*arguments: str) -> str:
    """Run promtool, and return its output, which is the reason if it failed."""
    done = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, check=False, timeout=100
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def inputs_of(rule: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the recording rules that a rule reads, in the order of their file.

    promtool evaluates each rule at each minute, so the other rules would take seconds.
    """
    names, found = [rule["expr"]], set[str]()
    while names:
        expr = names.pop()
        new = {each.name for each in selectors(expr)} & RECORDED.keys() - found
        found |= new
        names += [RECORDED[name]["expr"] for name in new]
    return [rule for name, rule in RECORDED.items() if name in found]


def test_prometheus_accepts_the_configuration_and_its_rules() -> None:
    assert promtool("check", "config", str(MONITORING / "prometheus.yml")) == ""


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_fires_for_its_series_and_not_for_similar_ones(alert: str, tmp_path: Path) -> None:
    groups = [each for each in TESTS["tests"] if each["name"].split()[0] == alert]
    kinds = {re.sub(rf"^{alert} (fires|is silent) .+", r"\1", each["name"]) for each in groups}
    assert kinds == {"fires", "is silent"}
    for each in groups:
        expected = [test.get("exp_samples") for test in each["promql_expr_test"]]
        assert any(expected) == (" fires " in each["name"]), each["name"]
    rules = tmp_path / "rules.yml"
    needed = [*inputs_of(ALERTS[alert]), ALERTS[alert]]
    rules.write_text(yaml.safe_dump({"groups": [{"name": "needed", "rules": needed}]}))
    file = tmp_path / "tests.yml"
    run = {"rule_files": [str(rules)], "group_eval_order": [], "tests": groups}
    file.write_text(yaml.safe_dump({**TESTS, **run}))
    assert promtool("test", "rules", str(file)) == ""


def test_each_test_of_the_rules_belongs_to_an_alert() -> None:
    assert {each["name"].split()[0] for each in TESTS["tests"]} == set(ALERTS)


def test_prometheus_can_parse_each_query_of_the_dashboard(tmp_path: Path) -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    queries = [
        re.sub(r"\$__\w+", "1m", target["expr"])
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert promtool("check", "rules", str(file)) == ""
    rules[0]["expr"] += ")"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    assert "could not parse expression" in promtool("check", "rules", str(file))


async def test_the_page_checks_the_configuration_that_it_shows(tmp_path: Path) -> None:
    stand_ins = {"trunkline/examples/monitoring": str(MONITORING)}
    async with followed(PAGE, tmp_path, "amqp://none", stand_ins=stand_ins):
        copied = tmp_path / "steps/monitoring/prometheus.yml"
        assert "shop.example:8080" in copied.read_text(encoding="utf-8")


# --- The queries of the page about metrics ---

DEAD = 'trunkline_messages_dead_lettered_total{service="shop",operation="%s",outcome="internal"}'
HANDLED = (
    'trunkline_messages_handled_total{service="shop",operation="%s",version="%s",caller="%s",'
    'outcome="ok"}'
)


def values_of(query: str, inputs: dict[str, str], at: str, tmp_path: Path) -> str:
    """Return what promtool prints for a query that should have no value, which names its values."""
    file = tmp_path / "query.yml"
    series = [{"series": name, "values": values} for name, values in inputs.items()]
    test = {"expr": query, "eval_time": at, "exp_samples": []}
    group = {"interval": "1m", "input_series": series, "promql_expr_test": [test]}
    file.write_text(yaml.safe_dump({"tests": [group]}))
    return promtool("test", "rules", str(file))


def operations_of(query: str, inputs: dict[str, str], at: str, tmp_path: Path) -> set[str]:
    """Return the operations of the values of a query."""
    got = values_of(query, inputs, at, tmp_path).partition("got:")[2]
    return set(re.findall(r'operation="([\w.]+)"', got))


def test_the_query_for_dead_letters_sees_the_first_one_of_a_series(tmp_path: Path) -> None:
    inputs = {
        DEAD % "shop.first": "_x60 1x80",
        DEAD % "shop.further": "1x60 2x80",
        DEAD % "shop.old": "3x140",
    }
    query = query_of("Which messages became dead letters")
    assert operations_of(query, inputs, "70m", tmp_path) == {"shop.first", "shop.further"}
    assert operations_of(query, inputs, "130m", tmp_path) == set()
    plain = f"sum by (operation) (increase({DEAD % 'shop.first'}[1h])) > 0"
    assert operations_of(plain, inputs, "70m", tmp_path) == set()


def test_the_query_for_version_1_leaves_out_contracts_without_another_version(
    tmp_path: Path,
) -> None:
    inputs = {
        HANDLED % ("shop.only", 1, "till"): "0+1x120",
        HANDLED % ("shop.price", 1, "till"): "0+1x120",
        HANDLED % ("shop.price", 2, "desk"): "0+1x120",
        HANDLED % ("shop.pay", 1, "rare"): "_x60 1x60",
        HANDLED % ("shop.find", 1, "earlier"): "5x120",
        'trunkline_handler_slots{service="shop",operation="shop.only",version="1"}': "4x120",
        'trunkline_handler_slots{service="shop",operation="shop.price",version="2"}': "4x120",
        'trunkline_handler_slots{service="shop",operation="shop.find",version="2"}': "4x120",
        'trunkline_messages_sent_total{service="desk",operation="shop.pay",version="2"}': "7x120",
    }
    query = query_of("Which services still call version 1")
    assert operations_of(query, inputs, "70m", tmp_path) == {"shop.price", "shop.pay"}


def test_the_panels_that_count_see_the_first_message_of_a_series(tmp_path: Path) -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    panels = {panel["title"]: panel for panel in dashboard["panels"]}
    for title, name in (
        ("New dead letters, by code", DEAD % "shop.first"),
        ("Callers by version of the contract", HANDLED % ("shop.first", 1, "till")),
    ):
        [target] = panels[title]["targets"]
        query = re.sub(r"\$__\w+", "10m", target["expr"]).replace("$service", ".+")
        query = query.replace("$operation", ".+")
        inputs = {name: "_x60 1x60"}
        assert operations_of(f"({query}) > 0", inputs, "65m", tmp_path) == {"shop.first"}, title
