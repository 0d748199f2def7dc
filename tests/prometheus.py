"""A Prometheus for a test: a process of its own with a temporary directory."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest

from bus.operations.brokers.ports import LOOPBACK, free_ports

__all__ = ["Prometheus", "needs_prometheus", "query_of", "running_prometheus"]

PAGE = Path(__file__).parents[1] / "docs/how-to/metrics.md"

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="Prometheus is not installed; scripts/ensure-prometheus installs it",
)
TIMEOUT_SECONDS = 30.0


class Prometheus:
    """The HTTP interface of a Prometheus."""

    def __init__(self, port: int) -> None:
        self.address = f"{LOOPBACK}:{port}"

    @property
    def is_ready(self) -> bool:
        """True if it answers queries."""
        try:
            with urlopen(f"http://{self.address}/-/ready", timeout=TIMEOUT_SECONDS) as answer:
                return bool(answer.status == 200)
        except (URLError, ConnectionError):
            return False

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of `/api/v1`. An answer with an error raises HTTPError."""
        url = f"http://{self.address}/api/v1/{path}?{urlencode(parameters)}"
        with urlopen(url, timeout=TIMEOUT_SECONDS) as answer:
            return json.load(answer)["data"]

    def query(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and values that a query has now."""
        result = self.get("query", query=expr)["result"]
        return [(each["metric"], float(each["value"][1])) for each in result]


def query_of(question: str) -> str:
    """Return the query of the row in docs/how-to/metrics.md that begins with the question."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    [row] = [line for line in lines if line.startswith(f"| {question}")]
    return row.split("`")[1]


@contextmanager
def running_prometheus(configuration: Path, folder: Path) -> Iterator[Prometheus]:
    """Run a Prometheus with a configuration file, and kill it at the end of the block."""
    [port] = free_ports(1)
    prometheus = Prometheus(port)
    command = [
        "prometheus",
        f"--config.file={configuration}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={prometheus.address}",
        "--enable-feature=exemplar-storage",
        "--log.level=warn",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield prometheus
    finally:
        process.kill()
        process.wait()
