"""Checks of Dockerfile and docker-compose.yml that require no container engine.

`make test-compose` has the others.
"""

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

from bus.settings import Settings

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]


def copied() -> set[str]:
    """Return the paths that the Dockerfile copies from the repository."""
    lines = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    return {path for line in lines for path in line.split()}


def test_the_image_takes_what_is_there_and_the_engine_is_sent_nothing_else() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    let_through = {line[1:] for line in ignored if line.startswith("!")}

    assert all((ROOT / path).exists() for path in copied())
    assert ignored[1] == "*"
    assert let_through == copied()


def test_the_image_does_not_run_as_root_and_its_versions_are_pinned() -> None:
    *_, last = re.findall(r"^(?:FROM|USER) (.+)$", DOCKERFILE, re.MULTILINE)

    assert last == "10001:10001"
    assert '--constraint constraints.txt ".[${EXTRAS}]"' in DOCKERFILE


def test_only_user_interfaces_are_published_and_to_this_machine_alone() -> None:
    published = re.findall(r'- "(.+:\d+)"', COMPOSE)

    assert published == [
        "127.0.0.1:${RABBITMQ_UI_PORT:-15672}:15672",
        "127.0.0.1:${PROMETHEUS_PORT:-9090}:9090",
        "127.0.0.1:${GRAFANA_PORT:-3000}:3000",
    ]
    assert "network_mode" not in COMPOSE


def test_prometheus_and_grafana_only_run_on_request_and_their_versions_are_pinned() -> None:
    for name in ("prometheus", "grafana"):
        service = SERVICES[name]
        assert service["profiles"] == ["monitoring"]
        assert service["cap_drop"] == ["ALL"]
        assert re.search(r":v?\d+\.\d+\.\d+}$", service["image"])


def test_the_files_that_compose_mounts_exist() -> None:
    mounted = [
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]

    assert len(mounted) == 5
    assert all((ROOT / path).exists() for path in mounted)


def test_prometheus_reads_each_worker_and_the_plugin_that_the_broker_enables() -> None:
    monitoring = ROOT / "examples/monitoring"
    configuration = yaml.safe_load((monitoring / "prometheus.yml").read_text())
    targets = {
        job["job_name"]: job["static_configs"][0]["targets"]
        for job in configuration["scrape_configs"]
    }
    workers = [
        name for name, service in SERVICES.items() if service.get("command", [""])[0] == "bus"
    ]
    health_port = SERVICES["documents"]["environment"]["BUS_HEALTH_PORT"]

    assert targets["trunkline"] == [
        f"{name}:{health_port}" for name in workers if name not in {"demo", "exporter"}
    ]
    assert targets["trunkline-exporter"] == [
        f"exporter:{SERVICES['exporter']['environment']['BUS_HEALTH_PORT']}"
    ]
    assert targets["rabbitmq"] == targets["rabbitmq-queues"] == ["rabbitmq:15692"]
    assert "rabbitmq_prometheus" in (monitoring / "enabled_plugins").read_text()
    assert "metrics" in DOCKERFILE.partition("ARG EXTRAS=")[2].partition("\n")[0].split(",")


def test_grafana_loads_the_dashboard_and_finds_its_prometheus() -> None:
    provisioning = ROOT / "examples/monitoring/grafana/provisioning"
    [source] = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    [provider] = yaml.safe_load((provisioning / "dashboards/trunkline.yml").read_text())[
        "providers"
    ]
    port = SERVICES["prometheus"]["ports"][0].rpartition(":")[2]
    paths = [volume.split(":")[1] for volume in SERVICES["grafana"]["volumes"]]

    assert source["url"] == f"http://prometheus:{port}"
    assert f"{provider['options']['path']}/trunkline.json" in paths


def test_no_password_stands_in_the_file() -> None:
    used = re.findall(r"\$\{RABBITMQ_PASSWORD[^}]*\}", COMPOSE)

    assert len(used) == 3
    assert all(each.startswith("${RABBITMQ_PASSWORD:?") for each in used)
    assert not any(fnmatch(path.name, ".env*") for path in map(Path, copied()))


def test_every_variable_of_the_bus_is_a_setting() -> None:
    named = set(re.findall(r"\bBUS_[A-Z_]+", COMPOSE + DOCKERFILE))

    assert named <= {f"BUS_{name.upper()}" for name in Settings.model_fields}


def test_compose_waits_longer_for_a_stop_than_the_worker_takes() -> None:
    [worker, *_] = re.findall(r"stop_grace_period: (\d+)s", COMPOSE)
    [grace] = re.findall(r"BUS_STOP_GRACE: (\d+)", COMPOSE)

    assert int(worker) > int(grace)


def test_the_page_names_every_variable() -> None:
    page = (ROOT / "docs/how-to/run-with-compose.md").read_text(encoding="utf-8")
    variables = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE))

    assert variables == set(re.findall(r"^\| `([A-Z_]+)`", page, re.MULTILINE))
