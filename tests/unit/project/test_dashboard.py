"""Checks of examples/monitoring that need neither Prometheus nor Grafana.

tests/examples/test_monitoring_rules.py has those that need promtool, and
tests/integration/test_monitoring.py runs each query.
"""

import copy
import importlib
import itertools
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

import bus.errors
from bus.cli import COMMANDS
from bus.errors import BusError
from bus.integrations.prometheus import metric_name
from bus.messaging.instruments import INSTRUMENTS
from tests.promql import labels_of, selectors

ROOT = Path(__file__).parents[3]
MONITORING = ROOT / "examples/monitoring"
SCHEMA = json.loads((Path(__file__).parent / "dashboard.schema.json").read_text())
DASHBOARD: dict[str, Any] = json.loads((MONITORING / "dashboard.json").read_text())
PANELS = DASHBOARD["panels"]
RULES = {
    name: [
        rule
        for group in yaml.safe_load((MONITORING / f"rules/{name}.yml").read_text())["groups"]
        for rule in group["rules"]
    ]
    for name in ("recording", "alerts")
}
ALL_RULES = [*RULES["recording"], *RULES["alerts"]]
ALERTS = {rule["alert"]: rule for rule in RULES["alerts"]}
EXPRESSIONS = {
    **{rule.get("alert") or rule["record"]: rule["expr"] for rule in ALL_RULES},
    **{
        f"{panel['title']} {target['refId']}": target["expr"].replace("${service}", "$service")
        for panel in PANELS
        for target in panel.get("targets", [])
    },
}
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "counter": ("",), "gauge": ("",)}
SERIES = {
    metric_name(each) + suffix: set(each.labels) | ({"le"} if suffix == "_bucket" else set())
    for each in INSTRUMENTS
    for suffix in SUFFIXES[each.kind]
} | {
    "trunkline_build_info": {"version", "service_version"},
    "trunkline_instances": {"state"},
    "trunkline_exporter_up": set(),
}
"""Labels of each metric of the bus, without those of every metric."""
OF_ALL = {"service", "instance", "job"}
RECORDED = {rule["record"] for rule in RULES["recording"]}
CODES = {
    kind.code
    for kind in vars(bus.errors).values()
    if isinstance(kind, type) and issubclass(kind, BusError)
}


# --- The dashboard ---


def test_the_dashboard_is_what_its_script_writes_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    page: str = importlib.import_module("dashboard").page()
    assert page == (MONITORING / "dashboard.json").read_text(), (
        "write it again: python scripts/dashboard.py > examples/monitoring/dashboard.json"
    )


def test_the_dashboard_has_the_form_that_grafana_requires() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(DASHBOARD, SCHEMA)


@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (("panels", 1, "targets", 0, "expr"), ""),
        (("panels", 1, "targets"), []),
        (("panels", 1, "fieldConfig", "defaults", "unit"), "messages"),
        (("panels", 1, "gridPos", "w"), 25),
        (("panels", 1, "targts"), []),
        (("templating", "list", 1, "datasource", "uid"), "prometheus"),
    ],
)
def test_the_schema_refuses_a_wrong_dashboard(path: tuple[str | int, ...], wrong: object) -> None:
    dashboard: Any = copy.deepcopy(DASHBOARD)
    *above, last = path
    part = dashboard
    for step in above:
        part = part[step]
    part[last] = wrong
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(dashboard, SCHEMA)


def test_each_panel_has_an_id_and_a_title_of_its_own() -> None:
    for field in ("id", "title"):
        values = [panel[field] for panel in PANELS]
        assert len(values) == len(set(values)), field


def test_no_panel_covers_another_one_or_leaves_the_grid() -> None:
    cells = [
        (x, y)
        for panel in PANELS
        for x, y in itertools.product(
            range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"]),
            range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"]),
        )
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) == 23


def test_the_queries_of_a_panel_have_different_ids() -> None:
    for panel in PANELS:
        ids = [target["refId"] for target in panel.get("targets", [])]
        assert len(ids) == len(set(ids)), panel["title"]


def test_a_legend_names_labels_that_its_query_keeps() -> None:
    for panel in PANELS:
        for target in panel.get("targets", []):
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            kept = labels_of(target["expr"]) | {"process", "alarm"}
            assert named <= kept | {"instance"}, (panel["title"], target["legendFormat"])


def test_a_panel_is_filtered_by_the_chosen_services() -> None:
    for name, expr in EXPRESSIONS.items():
        if "$__" in expr and "trunkline_" in expr:
            assert "$service" in expr, name


# --- The dashboard and the rules ---


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_an_expression_reads_metrics_and_labels_that_exist(name: str) -> None:
    expr = EXPRESSIONS[name]
    for selector in selectors(expr):
        if selector.name.startswith("trunkline_"):
            assert selector.name in SERIES, selector
            assert set(selector.labels) <= SERIES[selector.name] | OF_ALL, selector
        elif ":" in selector.name:
            assert selector.name in RECORDED, selector
        else:
            known = r"rabbitmq_.*|process_.*|up|ALERTS|"
            assert re.fullmatch(known, selector.name), selector


def test_each_instrument_is_on_the_dashboard() -> None:
    shown = " ".join(EXPRESSIONS[name] for name in EXPRESSIONS if "$" in EXPRESSIONS[name])
    assert [each.name for each in INSTRUMENTS if metric_name(each) not in shown] == []


def test_the_same_codes_are_faults_of_callers_everywhere() -> None:
    patterns = {
        codes
        for expr in EXPRESSIONS.values()
        for codes in re.findall(r'outcome!~"ok\|([\w|]+)"', expr)
    }
    assert len(patterns) == 1
    assert set(patterns.pop().split("|")) < CODES


# --- The rules ---


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_says_what_happens_and_which_command_to_run(name: str) -> None:
    alert = ALERTS[name]
    assert alert["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(alert["annotations"]) == {"summary", "description", "runbook"}
    assert re.search(r"`bus [a-z]+", alert["annotations"]["description"])


def test_the_commands_in_texts_for_operators_exist() -> None:
    texts = [ALERTS[name]["annotations"]["description"] for name in ALERTS]
    texts += [panel.get("description", "") for panel in PANELS]
    texts.append((ROOT / "docs/how-to/watch-with-grafana.md").read_text(encoding="utf-8"))
    commands = {
        re.sub(r" (\{\{.+\}\}|NAME|--\S+.*)$", "", command)
        for command in re.findall(r"`bus ([^`]+)`", " ".join(texts))
    }
    assert commands >= {"services", "queues", "dead list", "contracts usage"}
    for name, *below in map(str.split, commands):
        assert name in COMMANDS
        command = importlib.import_module(f"bus.cli.{name}").command
        if below:
            group: Any = typer.main.get_command(command)
            assert set(below) < group.commands.keys()


def test_a_recording_rule_is_used_by_another_rule() -> None:
    used = {selector.name for rule in ALL_RULES for selector in selectors(rule["expr"])}
    assert used >= RECORDED


@pytest.mark.parametrize("name", ALERTS)
def test_the_runbook_of_an_alert_is_a_heading_of_the_page(name: str) -> None:
    page, _, anchor = ALERTS[name]["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert anchor == name.lower()
    assert name in headings


def test_the_page_explains_no_alert_that_does_not_exist() -> None:
    page = (ROOT / "docs/how-to/watch-with-grafana.md").read_text(encoding="utf-8")
    assert re.findall(r"^### (Trunkline\w+)$", page, re.MULTILINE) == list(ALERTS)
