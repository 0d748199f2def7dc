"""Logging of `bus run`, in a process of its own, because logging belongs to the whole process.

No broker listens at the address, so that each process ends after it has logged that.
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bus.cli.run import warn_if_disabled

ROUTER = """
import logging
{setup}
from bus import Router

router = Router("till")
"""
BASIC = 'logging.basicConfig(format="own %(levelname)s %(message)s", level="INFO")'
CANNOT_CONNECT = "till consuming: cannot connect (connecting to localhost:1: "


def run(folder: Path, setup: str, **environment: str) -> list[str]:
    """Run `bus run` with a module that has these lines, and return the lines of its log."""
    (folder / "till.py").write_text(ROUTER.format(setup=setup))
    ended = subprocess.run(
        [sys.executable, "-m", "bus.cli", "run", "till:router"],
        cwd=folder,
        env={
            **os.environ,
            "BUS_URL": "amqp://localhost:1",
            "BUS_CONNECT_TIMEOUT": "0.2",
            "BUS_AUTH": "off",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == os.EX_UNAVAILABLE
    return ended.stderr.splitlines()


def test_without_logging_of_the_application_the_log_is_json(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in run(tmp_path, "") if line.startswith("{")]
    assert {"warning"} == {line["level"] for line in lines}
    assert [line for line in lines if line["event"].startswith(CANNOT_CONNECT)]


def test_the_logging_that_the_module_configured_at_import_stays(tmp_path: Path) -> None:
    lines = run(tmp_path, BASIC)
    assert [line for line in lines if line.startswith(f"own WARNING {CANNOT_CONNECT}")]
    assert not [line for line in lines if line.startswith("{")]


def test_with_the_format_none_nothing_is_configured(tmp_path: Path) -> None:
    lines = run(tmp_path, "", BUS_LOG_FORMAT="none")
    # Python's handler of last resort writes only the texts of warnings and errors.
    assert [line for line in lines if line.startswith(CANNOT_CONNECT)]
    assert not [line for line in lines if line.startswith("{")]


@pytest.mark.parametrize("disabled", [True, False])
def test_a_configuration_that_disables_the_loggers_of_the_bus_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *, disabled: bool
) -> None:
    # By default dictConfig sets `disabled` of each logger that exists.
    monkeypatch.setattr(logging.getLogger("bus"), "disabled", disabled)
    warn_if_disabled()
    assert ("disabled the loggers of the bus" in capsys.readouterr().err) is disabled


def test_the_audit_log_is_written_although_the_format_is_none() -> None:
    script = (
        "from bus.cli.audit import audited, begin_audit\n"
        "from bus.settings import load_settings\n"
        "begin_audit(load_settings())\n"
        "audited('payload revealed', queue='till.jobs.settle.v1')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "BUS_LOG_FORMAT": "none"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(ended.stderr)["queue"] == "till.jobs.settle.v1"


FAILING_LIFESPAN = """
from contextlib import asynccontextmanager
from bus import Message, Request, Router, contract

@asynccontextmanager
async def lifespan():
    raise ValueError("Eleonora Quist")
    yield

router = Router("till", lifespan=lifespan)
"""
MEMORY_RUN = """
import sys
from bus.cli import run
from bus.cli import main

async def enter(services, stop, health, started):
    for router, _ in services:
        async with router.opened(None):
            pass

run.serve_until = enter
sys.argv[1:] = ["run", "till:router"]
main()
"""
FAILING_IMPORT = 'raise ValueError("Eleonora Quist")\n'


@pytest.mark.parametrize("debug", ["1", "0"])
@pytest.mark.parametrize("module", [FAILING_LIFESPAN, FAILING_IMPORT], ids=["lifespan", "import"])
def test_only_with_bus_debug_a_module_that_fails_has_its_traceback_on_standard_error(
    tmp_path: Path, module: str, debug: str
) -> None:
    (tmp_path / "till.py").write_text(module)
    ended = subprocess.run(
        [sys.executable, "-c", MEMORY_RUN],
        cwd=tmp_path,
        env={**os.environ, "BUS_AUTH": "off", "BUS_DEBUG": debug},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode in {os.EX_SOFTWARE, os.EX_CONFIG}
    assert "ValueError" in ended.stderr
    assert ("Traceback (most recent call last)" in ended.stderr) is (debug == "1")
