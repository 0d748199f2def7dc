"""Checks of Dockerfile and docker-compose.yml that require no container engine.

`make test-compose` has the others.
"""

import re
from fnmatch import fnmatch
from pathlib import Path

from bus.settings import Settings

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


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


def test_only_the_ui_is_published_and_to_this_machine_alone() -> None:
    published = re.findall(r'- "(.+:\d+)"', COMPOSE)

    assert published == ["127.0.0.1:${RABBITMQ_UI_PORT:-15672}:15672"]
    assert "network_mode" not in COMPOSE


def test_no_password_stands_in_the_file() -> None:
    used = re.findall(r"\$\{RABBITMQ_PASSWORD[^}]*\}", COMPOSE)

    assert len(used) == 2
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
