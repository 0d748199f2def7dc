import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MAX_LINES = 80
GUIDES = ("CONTRIBUTING.md", "docs/contributing/style.md", "docs/contributing/tests.md")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_contributing_is_short() -> None:
    assert len(read("CONTRIBUTING.md").splitlines()) <= MAX_LINES


def test_each_package_has_its_charter_in_contributing() -> None:
    packages = {path.parent.name for path in ROOT.glob("bus/*/__init__.py")}
    assert set(re.findall(r"^\| `(\w+)` \|", read("CONTRIBUTING.md"), re.MULTILINE)) == packages


@pytest.mark.parametrize("name", GUIDES)
def test_each_target_and_path_of_a_guide_exists(name: str) -> None:
    text = read(name)
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets
    for path in re.findall(r"[ `]((?:bus|docs|scripts|tests)/[\w/.*-]+)", text):
        assert [*ROOT.glob(path)], path


def test_the_style_page_has_twelve_rules_and_ten_pairs() -> None:
    page = read("docs/contributing/style.md")
    rules = re.findall(r"^\| (\d+) \| .+ \| .+ \|$", page, re.MULTILINE)
    assert rules == [str(number) for number in range(1, 13)]
    pairs = re.findall(r"```diff\n((?:- .*\n)+)((?:\+.*\n)+)```", page)
    assert len(pairs) == len(re.findall(r"^### \d+\. ", page, re.MULTILINE)) == 10


def test_the_hooks_of_pre_commit_run_what_make_lint_runs_and_fetch_nothing() -> None:
    settings = read(".pre-commit-config.yaml")
    assert re.findall(r"repo: (.*)", settings) == ["local"]
    assert "://" not in settings
    lint = (
        read("Makefile")
        .partition("\nlint: ")[2]
        .partition("\n\n")[0]
        .replace("$(BIN)", ".venv/bin")
    )
    commands = re.findall(r"entry: (\.venv/bin/\S+(?: [\w./-]+)?)", settings)
    assert len(commands) == 5
    assert all(command in lint for command in commands)


def stages(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "STAGES_NESTED"}
    return subprocess.run(
        [ROOT / "scripts/stages", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_time_of_each_stage_and_of_all_is_printed() -> None:
    inner = "scripts/stages test unit true others 'echo passed'"
    done = stages("check", "lint", "true", "test", inner)
    lines = re.sub(r"\d+ s", "N s", done.stdout).splitlines()
    assert lines == [
        *("lint: N s", "unit: N s", "passed", "others: N s", "test: N s"),
        "check: N s in total",
    ]
    assert done.returncode == 0


def test_the_first_stage_that_fails_ends_the_target() -> None:
    done = stages("check", "lint", "exit 3", "test", "echo never")
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(r"lint: failed after \d+ s\n", done.stderr)
