"""The metrics and queries of the documents exist, and Prometheus can parse them."""

import asyncio
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from bus.contracts.contract import Event, contract
from bus.integrations.prometheus import (
    Exporter,
    ProcessesCollector,
    exporter_registry,
    metric_name,
    process_registry,
    processes_registry,
)
from bus.integrations.prometheus.collectors import StatsCollector
from bus.integrations.prometheus.exposition import render
from bus.messaging.instruments import INSTRUMENTS
from bus.messaging.service_info import ProcessStats
from bus.testing.buses import MemoryBuses

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/how-to/metrics.md"
PAGES = [
    path
    for path in [*ROOT.glob("docs/how-to/*.md"), *ROOT.glob("docs/reference/*.md")]
    if re.search(r"\btrunkline_\w", path.read_text(encoding="utf-8"))
]
QUERY = re.compile(r"^\| .+\? \| `(.+)` \|$", re.MULTILINE)
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool is not installed"
)
NAME = re.compile(r"\btrunkline_[a-z0-9_]+")


@contract("watcher.watched", version=1)
class Watched(Event):
    """An event that a bus counts."""


def names_of(registry: CollectorRegistry) -> set[str]:
    return {
        f"{each.name}_total" if each.type == "counter" else each.name for each in registry.collect()
    }


async def registries() -> list[CollectorRegistry]:
    """Return the metrics of a worker, of a parent, and of the exporter."""
    async with MemoryBuses() as buses:
        watcher = await buses.bus("watcher")
        await watcher.publish(Watched())
        exporter, parent = Exporter(watcher.discovery, window=0.1), ProcessesCollector(1)
        await exporter.refresh()
        stats = ProcessStats(pid=os.getpid(), instances=(watcher.report.stats(),))
        parent.update([stats.model_dump_json().encode()])
        worker = process_registry(StatsCollector(lambda: stats.instances))
        return [worker, processes_registry(parent), exporter_registry(lambda: exporter.shown)]


async def known_names() -> set[str]:
    """Return the names of all metrics that a worker, a parent or the exporter can show."""
    shown = set[str]().union(*map(names_of, await registries()))
    for each in INSTRUMENTS:
        ends = ("_bucket", "_sum", "_count") if each.kind == "histogram" else ()
        shown |= {metric_name(each), *(f"{metric_name(each)}{end}" for end in ends)}
    return shown


async def test_every_metric_of_the_documents_exists() -> None:
    known = await known_names()
    for page in PAGES:
        named = set(NAME.findall(page.read_text(encoding="utf-8")))
        assert named <= known, page


async def test_the_page_of_metrics_lists_each_metric_that_is_not_an_instrument() -> None:
    shown = {name for name in await known_names() if NAME.fullmatch(name)}
    of_instruments = {metric_name(each) for each in INSTRUMENTS}
    others = {name for name in shown if not name.startswith(tuple(of_instruments))}
    table = PAGE.read_text(encoding="utf-8").partition("## Metrics beside the instruments")[2]

    assert set(re.findall(r"^\| `(trunkline_\w+)`", table, re.MULTILINE)) == others


@needs_promtool
async def test_prometheus_finds_no_fault_in_the_names_and_texts_of_the_metrics() -> None:
    for registry in await registries():
        done = await asyncio.to_thread(
            lambda text: subprocess.run(
                ["promtool", "check", "metrics"],
                input=text,
                capture_output=True,
                check=False,
                timeout=60,
            ),
            render(registry, "text"),
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


@needs_promtool
def test_prometheus_parses_each_query_and_configuration_of_the_page(tmp_path: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    queries = [each.replace(r"\|", "|") for each in QUERY.findall(text)]
    assert len(queries) >= 11
    rules = [{"record": f"query:{number}", "expr": each} for number, each in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(
        yaml.safe_dump({"groups": [{"name": "page", "rules": rules}]})
    )
    checks = ["rules", "config", "config"]
    files = ["rules.yml", "prometheus.yml", "exporter.yml"]
    for name in files[1:]:
        [content] = re.findall(
            rf'^```yaml title="{name}"\n(.*?)^```$', text, re.MULTILINE | re.DOTALL
        )
        (tmp_path / name).write_text(content)
    for check, name in zip(checks, files, strict=True):
        subprocess.run(["promtool", "check", check, name], cwd=tmp_path, check=True, timeout=60)
