"""Checks of the files on the page "Deploy your own service" that need no container engine.

The page was followed with Docker, Compose 1.29 and Compose 2 when it was written.
"""

import copy
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kubernetes_validate
import pytest
import yaml

from bus.settings import Settings

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs/how-to/deploy-your-own-service.md"
TEXT = PAGE.read_text(encoding="utf-8")
UPGRADE = (ROOT / "docs/how-to/upgrade.md").read_text(encoding="utf-8")
FILES = dict(
    re.findall(r"^```(?!console)\w+ title=\"(.+?)\"\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
)
KUBERNETES = "1.37"
MANIFESTS = [name for name in FILES if name.startswith(("k8s/", "topology/"))]
SETTINGS = {f"BUS_{name.upper()}" for name in Settings.model_fields}
"""The variables that a service reads."""
COMMAND_LINE = {"BUS_CONTRACTS"}
"""The variables that only the command line reads."""
USER = 10001


def manifest(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILES[name])
    return loaded


def deployed() -> dict[str, Any]:
    pod: dict[str, Any] = manifest("k8s/deployment.yaml")["spec"]["template"]["spec"]
    return pod


def container() -> dict[str, Any]:
    [only] = deployed()["containers"]
    assert isinstance(only, dict)
    return only


def environment() -> dict[str, str]:
    variables: dict[str, str] = manifest("k8s/settings.yaml")["data"]
    return variables


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FILES["compose.yaml"])
    return loaded


# --- The service and its image ---


def test_the_service_of_the_page_is_imported_and_its_grants_fit(tmp_path: Path) -> None:
    for name in ("shop/contracts.py", "shop/service.py", "grants.toml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(FILES[name])
    script = (
        "from pathlib import Path; from bus.security.grants_file import load_grants; "
        "from shop.service import router; contracts = router.contracts; "
        "grants = load_grants(Path('grants.toml'), contracts); "
        "print(router.name, *(contract.type for contract in contracts))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("shop shop.price.v1 shop.pack.v1\n", "")


def test_the_engine_gets_what_the_image_copies_and_nothing_else() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", FILES["Dockerfile"], re.MULTILINE)
    first, *let_through, last = FILES[".dockerignore"].split()
    assert (first, last) == ("*", "**/__pycache__")
    assert {line.removeprefix("!") for line in let_through} == {
        path for line in copied for path in line.split()
    }


def test_a_signal_reaches_the_worker_and_the_image_checks_its_health() -> None:
    assert 'CMD ["bus", "run", "shop.service:router"]' in FILES["Dockerfile"]
    assert re.search(r'^HEALTHCHECK .* CMD \["bus", "health"\]$', FILES["Dockerfile"], re.MULTILINE)


def test_pip_takes_the_bus_from_the_wheel_and_never_from_an_index() -> None:
    [requirement] = FILES["requirements.txt"].split()
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert requirement == f"./wheels/trunkline-{version[1]}-py3-none-any.whl"
    assert "--constraint constraints.txt" in FILES["Dockerfile"]


# --- Kubernetes ---


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_is_valid_for_the_strict_schema_of_the_version_that_the_page_names(
    name: str,
) -> None:
    assert kubernetes_validate.validate(manifest(name), KUBERNETES, strict=True) == KUBERNETES
    assert f"Kubernetes {KUBERNETES}" in TEXT


def test_the_strict_schema_refuses_a_misspelled_field() -> None:
    wrong = copy.deepcopy(manifest("k8s/deployment.yaml"))
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 45
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_the_probes_ask_the_port_that_the_worker_opens() -> None:
    [port] = container()["ports"]
    assert str(port["containerPort"]) == environment()["BUS_HEALTH_PORT"]
    assert environment()["BUS_HEALTH_HOST"] == "0.0.0.0"
    paths = {
        probe: (
            container()[probe]["httpGet"]["path"],
            container()[probe]["httpGet"]["port"] == port["name"],
        )
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert paths == {
        "startupProbe": ("/livez", True),
        "livenessProbe": ("/livez", True),
        "readinessProbe": ("/readyz", True),
    }


def test_a_rollout_and_a_drain_leave_a_worker() -> None:
    deployment, budget = manifest("k8s/deployment.yaml"), manifest("k8s/disruption-budget.yaml")
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert 0 < budget["spec"]["minAvailable"] < deployment["spec"]["replicas"]
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels


def test_every_file_that_a_setting_names_is_mounted_and_created_on_the_page() -> None:
    mounts = {each["mountPath"]: each["name"] for each in container()["volumeMounts"]}
    volumes = {each["name"]: each for each in deployed()["volumes"]}
    for variable in ("BUS_KEY", "BUS_PASSWORD_FILE", "BUS_JWKS", "BUS_GRANTS"):
        path = Path(environment()[variable])
        volume = volumes[mounts[str(path.parent)]]
        kind, name = (
            ("secret generic", volume["secret"]["secretName"])
            if "secret" in volume
            else ("configmap", volume["configMap"]["name"])
        )
        [command] = re.findall(rf"^\$ kubectl create {kind} {name} (.+)", TEXT, re.MULTILINE)
        assert re.search(rf"--from-file=({path.name}=)?\S*{path.name}\b", command) or (
            f"--from-file={path.name}=" in command
        )
    assert {each["name"] for each in container()["envFrom"][0].values()} == {
        manifest("k8s/settings.yaml")["metadata"]["name"]
    }


def test_a_mounted_key_is_readable_for_the_user_of_the_image_alone() -> None:
    assert f"USER {USER}:{USER}" in FILES["Dockerfile"]
    for name in ("k8s/deployment.yaml", "topology/job.yaml"):
        pod = manifest(name)["spec"]["template"]["spec"]
        context = pod["securityContext"]
        assert (context["runAsUser"], context["fsGroup"], context["runAsNonRoot"]) == (
            USER,
            USER,
            True,
        )
        assert [each["secret"]["defaultMode"] for each in pod["volumes"] if "secret" in each] == [
            0o400
        ]
    assert re.findall(r"install -D --owner=(\d+) --mode=(\d+)", TEXT) == [(str(USER), "0400")] * 2


@pytest.mark.parametrize("name", ["k8s/deployment.yaml", "topology/job.yaml"])
def test_a_pod_has_no_right_that_it_does_not_need(name: str) -> None:
    pod = manifest(name)["spec"]["template"]["spec"]
    [only] = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert only["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


# --- Compose and Kubernetes ---


def test_every_variable_of_the_bus_is_a_setting() -> None:
    code = "".join(FILES.values())
    assert set(re.findall(r"\bBUS_[A-Z_]+", code)) <= SETTINGS | COMMAND_LINE
    assert set(re.findall(r"`(BUS_[A-Z_]+)", TEXT + UPGRADE)) <= SETTINGS | COMMAND_LINE


def test_a_stop_takes_less_time_than_its_orchestrator_permits() -> None:
    seconds = deployed()["terminationGracePeriodSeconds"]
    assert seconds >= int(environment()["BUS_STOP_GRACE"]) + 10
    services = compose()["services"]
    assert services["shop"]["stop_grace_period"] == "45s"
    assert services["shop"]["environment"]["BUS_STOP_GRACE"] <= 45 - 10


def test_no_file_contains_a_secret() -> None:
    assert "kind: Secret" not in "".join(FILES.values())
    addresses = [
        environment()["BUS_URL"],
        *(each["value"] for each in _job_environment() if each["name"] == "BUS_URL"),
    ]
    assert [urlsplit(address).password for address in addresses] == [None, None]
    passwords = re.findall(r"\$\{RABBITMQ_PASSWORD[^}]*\}", FILES["compose.yaml"])
    assert len(passwords) == 2
    assert all(each.startswith("${RABBITMQ_PASSWORD:?") for each in passwords)
    assert "keys" not in FILES["Dockerfile"]


def _job_environment() -> list[dict[str, str]]:
    [only] = manifest("topology/job.yaml")["spec"]["template"]["spec"]["containers"]
    variables: list[dict[str, str]] = only["env"]
    return variables


def test_compose_publishes_only_the_ui_and_to_this_machine_alone() -> None:
    published = [
        port for service in compose()["services"].values() for port in service.get("ports", [])
    ]
    assert published == ["127.0.0.1:15672:15672"]


def test_a_service_of_compose_has_no_right_that_it_does_not_need() -> None:
    for name in ("shop", "till"):
        service = compose()["services"][name]
        assert service["read_only"]
        assert service["init"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(volume.endswith(":ro") for volume in service["volumes"])


# --- What to watch ---


def test_every_logger_to_watch_writes_lines_of_the_level_that_the_page_names() -> None:
    rows = re.findall(r"^\| `(bus\.[a-z]+)` \| ([a-z, ]+) \|", TEXT, re.MULTILINE)
    assert len(rows) == 10
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "bus").rglob("*.py")]
    for logger, levels in rows:
        modules = "".join(source for source in sources if f'getLogger("{logger}")' in source)
        for level in levels.split(", "):
            assert re.search(rf"\.{level}\(|log\.log\(", modules), (logger, level)


def test_every_exit_code_to_watch_is_in_the_reference() -> None:
    reference = (ROOT / "docs/reference/command-line.md").read_text(encoding="utf-8")
    codes = re.findall(r"^\| exit code (\d+) \|", TEXT, re.MULTILINE)
    assert codes == ["69", "77", "78", "70", "137"]
    assert all(f"\n| {code} |" in reference for code in codes if code != "137")
