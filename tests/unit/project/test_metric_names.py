"""The metrics and queries of the documents exist, and Prometheus can parse them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry

from bus.integrations.prometheus import (
    Exporter,
    ProcessesCollector,
    exporter_registry,
    metric_name,
    processes_registry,
)
from bus.messaging.instruments import INSTRUMENTS
from bus.testing.buses import MemoryBuses

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/how-to/metrics.md"
PAGES = [
    path
    for path in [*ROOT.glob("docs/how-to/*.md"), *ROOT.glob("docs/reference/*.md")]
    if re.search(r"\btrunkline_\w", path.read_text(encoding="utf-8"))
]
QUERY = re.compile(r"^\| .+\? \| `(.+)` \|$", re.MULTILINE)
NAME = re.compile(r"\btrunkline_[a-z0-9_]+")


def names_of(registry: CollectorRegistry) -> set[str]:
    return {
        f"{each.name}_total" if each.type == "counter" else each.name for each in registry.collect()
    }


async def known_names() -> set[str]:
    """Return the names of all metrics that a worker, a parent or the exporter can show."""
    async with MemoryBuses() as buses:
        exporter = Exporter((await buses.bus("watcher")).discovery, window=0.1)
        await exporter.refresh()
        shown = names_of(exporter_registry(exporter))
    shown |= names_of(processes_registry(ProcessesCollector(1)))
    for each in INSTRUMENTS:
        ends = ("_bucket", "_sum", "_count") if each.kind == "histogram" else ()
        shown |= {metric_name(each), *(f"{metric_name(each)}{end}" for end in ends)}
    return shown


async def test_every_metric_of_the_documents_exists() -> None:
    known = await known_names()
    for page in PAGES:
        named = set(NAME.findall(page.read_text(encoding="utf-8")))
        assert named <= known, page


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
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
