"""Each code block of the tutorial, the how-to pages and README is run by a test, or marked.

The grammar of the blocks is in tests/examples/page.py.
"""

import re
from pathlib import Path

import pytest

from scripts.site_hooks import groups_of
from tests.examples.page import NOT_TYPED, Block, fences
from tests.examples.test_pages import HOW_TO

ROOT = Path(__file__).parents[3]
INDEX = ROOT / "docs/how-to/README.md"
PAGES = sorted(
    path
    for path in [ROOT / "README.md", *ROOT.glob("docs/tutorial/*.md"), *ROOT.glob("docs/how-to/*")]
    if path != INDEX
)
OTHER_TESTS = {
    "change-an-event.md": "tests/examples/test_change_an_event.py",
    "README.md": "tests/examples/test_readme.py",
    "first-service.md": "tests/examples/test_pages.py",
    "troubleshoot.md": "tests/integration/test_troubleshooting.py",
    "use-certificates.md": "tests/integration/test_tls.py",
    "use-from-fastapi.md": "tests/examples/test_fastapi.py",
    "use-oauth-2.md": "tests/integration/test_tls.py",
    "watch-with-grafana.md": "tests/examples/test_monitoring_rules.py",
}
"""Pages with a test of their own, and the file of that test."""

README_COMMANDS = {
    "make demo": ".ci/run",
    "make test": ".ci/run",
    "pip install PATH_OF_THIS_CHECKOUT": "make check-wheel",
    "bus broker": "tests/integration/test_cli.py",
    "BUS_AUTH=off bus run library:router": "tests/examples/test_readme.py",
    "BUS_AUTH=off python reader.py": "tests/examples/test_readme.py",
}
"""Commands of the untitled console blocks of README, with what runs each of them."""

MOST_MARKED = 20
"""Number of the blocks that no test runs. Lower it when a test runs one more of them."""


def blocks_of(page: Path) -> list[Block]:
    return list(fences(page.read_text(encoding="utf-8")))


def is_set_up(block: Block) -> bool:
    """Return True if the block only installs packages, which every test has done already."""
    lines = block.text.splitlines()
    return block.language == "console" and all(
        line.startswith(tuple(f"$ {command}" for command in NOT_TYPED)) for line in lines
    )


def is_of_readme(page: Path, block: Block) -> bool:
    """Return True if each command of a block of README is run elsewhere."""
    commands = [line.partition("#")[0].strip() for line in block.text.splitlines()]
    return page == ROOT / "README.md" and all(command in README_COMMANDS for command in commands)


def neither_run_nor_marked(page: Path) -> list[str]:
    return [
        f"{page.name}:{block.line}"
        for block in blocks_of(page)
        if not (block.title or block.reason or is_set_up(block) or is_of_readme(page, block))
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_each_block_of_a_page_is_run_by_a_test_or_marked_as_not_run(page: Path) -> None:
    assert neither_run_nor_marked(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_with_blocks_to_run_is_followed_by_a_test(page: Path) -> None:
    if not any(block.title and not block.reason for block in blocks_of(page)):
        return
    if page.name in OTHER_TESTS:
        test = (ROOT / OTHER_TESTS[page.name]).read_text(encoding="utf-8")
        names = (page.name, "PAGE")  # PAGE: the test shares the path with its other modules
        assert any(name in test for name in names), OTHER_TESTS[page.name]
    else:
        assert page.stem in HOW_TO


def test_a_mark_has_a_reason_and_only_few_blocks_have_a_mark() -> None:
    marked = [block for page in PAGES for block in blocks_of(page) if block.reason]
    assert all(block.reason.endswith(".") for block in marked)
    assert len(marked) <= MOST_MARKED, "run the new block, or raise the number"


def test_a_block_without_title_and_mark_is_reported(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        'Text.\n\n```console\n$ bus queues\n```\n\n```python title="a.py"\n```\n\n'
        "*Not run by a test: it needs root.*\n\n```console\n$ reboot\n```\n\n"
        "```console\n$ pip install trunkline\n```\n",
        encoding="utf-8",
    )
    assert neither_run_nor_marked(page) == ["page.md:3"]


def test_each_how_to_page_is_in_exactly_one_group_of_the_index() -> None:
    grouped = [page for pages in groups_of(INDEX).values() for page in pages]
    assert sorted(grouped) == sorted(
        path.name for path in INDEX.parent.glob("*.md") if path != INDEX
    )


def test_the_index_describes_each_page_in_a_line() -> None:
    lines = [line for line in INDEX.read_text(encoding="utf-8").splitlines() if line[:2] == "- "]
    assert all(re.fullmatch(r"- \[[^\]]+\]\([\w-]+\.md\): .+\.", line) for line in lines), lines
