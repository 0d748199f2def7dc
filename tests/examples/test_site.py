import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typing_extensions import override

ROOT = Path(__file__).parents[2]

FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "object": "data",
    "link": "href",
}
ELSEWHERE = re.compile(r"(?:https?:)?//")
IN_CSS = re.compile(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^\"')]*")


class Fetches(HTMLParser):
    """Resources that a browser would request from another host.

    Mermaid diagrams are among them, because the theme would fetch a script for them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        target = values.get(FETCHED.get(tag, "")) or ""
        if ELSEWHERE.match(target) and values.get("rel") != "canonical":
            self.found.append(target)
        if "mermaid" in (values.get("class") or "").split():
            self.found.append("mermaid")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    # With --quiet MkDocs ignores warnings, and a strict build passes with dead links.
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert (
        done.returncode,
        [line for line in done.stderr.splitlines() if not line.startswith("INFO")],
    ) == (0, []), done.stderr
    return folder


def test_every_document_is_a_page_that_the_navigation_leads_to(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        page = path.relative_to(ROOT / "docs").with_suffix("").as_posix().removesuffix("README")
        assert (site / page / "index.html").exists(), page
        assert f'href="{page.rstrip("/")}/"' in home or path.stem == "template", page


def test_a_bar_in_a_tables_code_is_shown_without_a_backslash(site: Path) -> None:
    assert "<code>float | None</code>" in (site / "reference/api/index.html").read_text(
        encoding="utf-8"
    )


def test_no_page_asks_anything_of_another_host(site: Path) -> None:
    assert list(asked_elsewhere(site)) == []


def asked_elsewhere(site: Path) -> Iterator[str]:
    for path in site.rglob("*.html"):
        fetches = Fetches()
        fetches.feed(path.read_text(encoding="utf-8"))
        yield from (f"{path.relative_to(site)}: {target}" for target in fetches.found)
    for path in site.rglob("*.css"):
        yield from (
            f"{path.relative_to(site)}: {target}"
            for target in IN_CSS.findall(path.read_text(encoding="utf-8"))
        )


class Columns(HTMLParser):
    """Names of columns in the headings and in the cells of the tables of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[tuple[list[str], list[str | None]]] = []
        self.in_heading = False

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "table":
            self.tables.append(([], []))
        elif tag == "th":
            self.tables[-1][0].append("")
        elif tag == "td":
            self.tables[-1][1].append(dict(attrs).get("data-column"))
        self.in_heading = tag == "th" or self.in_heading

    @override
    def handle_endtag(self, tag: str) -> None:
        self.in_heading = self.in_heading and tag != "th"

    @override
    def handle_data(self, data: str) -> None:
        if self.in_heading:
            self.tables[-1][0][-1] += data


@pytest.mark.parametrize("page", ["reference/settings", "reference/errors", "benchmarks"])
def test_each_cell_of_a_table_has_the_name_of_its_column_for_a_narrow_screen(
    site: Path, page: str
) -> None:
    columns = Columns()
    columns.feed((site / page / "index.html").read_text(encoding="utf-8"))
    assert columns.tables
    for names, cells in columns.tables:
        assert cells == names * (len(cells) // len(names))


def test_a_narrow_screen_shows_the_rows_of_a_table_as_blocks(site: Path) -> None:
    css = (site / "assets/site.css").read_text(encoding="utf-8")
    narrow = css.partition("@media screen and (max-width: 44.984375em) {")[2]
    assert re.search(r"table:not\(\[class\]\) :is\(tbody, tr, td\) \{\s*display: block;", narrow)
    assert 'content: attr(data-column) ": ";' in narrow


def test_a_table_with_seven_columns_of_sentences_shows_its_rows_as_blocks_everywhere(
    site: Path,
) -> None:
    blocks = {
        page: '<table data-rows="blocks">' in (site / page / "index.html").read_text("utf-8")
        for page in ("reference/errors", "reference/settings", "benchmarks")
    }
    assert blocks == {"reference/errors": True, "reference/settings": False, "benchmarks": False}
    assert 'table[data-rows="blocks"]' in (site / "assets/site.css").read_text(encoding="utf-8")


def test_the_navigation_has_the_groups_of_the_how_to_pages(site: Path) -> None:
    index = (ROOT / "docs/how-to/README.md").read_text(encoding="utf-8")
    home = (site / "how-to/index.html").read_text(encoding="utf-8")
    for group in re.findall(r"^## (.+)$", index, flags=re.MULTILINE):
        assert re.search(rf'class="md-ellipsis">\s*(?:<span[^>]*>)?\s*{re.escape(group)}\s', home)
