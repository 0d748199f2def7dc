"""Tests of the set-up, and of the runs on several Pythons. Scripts stand in for pip and Python."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]

NO_WHEEL = """#!/bin/sh
echo "$@" >>"$LOG"
case "$*" in
    -c*version_info*) echo 3.14 ;;
    -c*) exit 1 ;;
    *transcription*) echo "ERROR: Failed building wheel for pocketsphinx"; exit 1 ;;
esac
"""
"""A Python without headers, whose pip cannot build pocketsphinx."""
NO_INDEX = """#!/bin/sh
case "$*" in
    -c*) exit 1 ;;
    *) echo "ERROR: No matching distribution found for aio-pika"; exit 1 ;;
esac
"""


def set_up(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """Run the script with this text as the environment's Python."""
    (folder / "bin").mkdir()
    fake = folder / "bin/python"
    fake.write_text(python, encoding="ascii")
    fake.chmod(0o755)
    script = ROOT / "scripts/install-dependencies"
    return subprocess.run(
        [script, str(folder), "dev,encryption,transcription"],
        env={"PATH": os.environ["PATH"], "LOG": str(folder / "log")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_set_up_goes_on_without_the_worker_whose_package_cannot_be_built(
    tmp_path: Path,
) -> None:
    ended = set_up(tmp_path, NO_WHEEL)

    assert ended.returncode == 0, ended.stderr
    assert "The transcription worker is left out" in ended.stdout
    assert "Failed building" not in ended.stdout + ended.stderr
    last = [line for line in (tmp_path / "log").read_text().splitlines() if "install" in line][-1]
    assert last.endswith("--editable .[dev,encryption] httpx numpy soundfile soxr")


def test_another_failure_of_pip_ends_the_set_up_with_its_reason(tmp_path: Path) -> None:
    ended = set_up(tmp_path, NO_INDEX)

    assert ended.returncode == 1
    assert "No matching distribution found for aio-pika" in ended.stderr
    assert f"the whole output is in {tmp_path}/setup.log" in ended.stderr


def test_a_named_python_that_is_none_is_refused(tmp_path: Path) -> None:
    ended = subprocess.run(
        [ROOT / "scripts/make-venv", str(tmp_path / "venv")],
        env={**os.environ, "PYTHON": str(tmp_path / "python9")},
        capture_output=True,
        text=True,
        check=False,
    )

    assert ended.returncode == 1
    assert f"PYTHON={tmp_path}/python9 is not Python 3.11 or newer" in ended.stderr


@pytest.fixture
def pythons() -> ModuleType:
    spec = importlib.util.spec_from_file_location("test_pythons", ROOT / "scripts/test_pythons.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["test_pythons"] = module
    spec.loader.exec_module(module)
    return module


def test_the_counts_of_both_runs_are_read_and_a_failed_test_is_among_them(
    pythons: ModuleType,
) -> None:
    output = (
        "2319 passed in 15.26s\nothers\n1 failed, 1397 passed, 15 skipped in 378.85s (0:06:18)\n"
    )

    assert pythons.COUNTS.findall(output) == ["2319 passed", "1 failed, 1397 passed, 15 skipped"]


def test_what_is_not_a_python_is_refused_before_anything_runs(
    pythons: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert pythons.main([sys.executable, str(tmp_path / "python9")]) == os.EX_USAGE
    assert "python9 is not a Python" in capsys.readouterr().err


def ensure_prometheus(path: Path) -> subprocess.CompletedProcess[str]:
    """Run the script with the programs of a folder, and with sed and id."""
    for name in ("sed", "id", "dirname"):
        program = shutil.which(name)
        assert program is not None
        (path / name).symlink_to(program)
    return subprocess.run(
        ["/bin/sh", ROOT / "scripts/ensure-prometheus"],
        env={"PATH": str(path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_an_installed_prometheus_is_used(tmp_path: Path) -> None:
    for name in ("prometheus", "promtool"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\necho "promtool, version 9.8.7 (branch: x)"\n')
        program.chmod(0o755)

    ended = ensure_prometheus(tmp_path)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "using version 9.8.7" in ended.stdout


def test_prometheus_is_optional_where_it_cannot_be_installed(tmp_path: Path) -> None:
    ended = ensure_prometheus(tmp_path)  # no apt-get is on the PATH

    assert (ended.returncode, ended.stderr) == (0, "")
    assert "are skipped. To get it: apt-get install prometheus" in ended.stdout
