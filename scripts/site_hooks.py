"""MkDocs hooks that build a site from this repository's Markdown files.

- The navigation is made from the folders, so a new page needs no configuration.
  A new how-to page also needs a line in `docs/how-to/README.md`, which groups these pages.
- README, CONTRIBUTING, CHANGELOG and SECURITY become pages, and README is the first page.
- A link to another file, such as an example or a script, leads to a page that shows the file.
  Therefore the site needs no Git host.

The links in the Markdown files are correct on a Git host. The hooks rewrite them for the site, and
MkDocs checks them.
"""

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

__all__ = ["groups_of", "on_config", "on_files", "on_page_content", "on_page_markdown"]

ROOT = Path(__file__).parents[1]
DOCS = "docs"

FROM_ROOT = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "CHANGELOG.md": "project/changes.md",
    "SECURITY.md": "project/security.md",
}
MEASURED = ("benchmarks.md", "reliability.md")
SECTIONS = {
    "Tutorial": "tutorial",
    "How to": "how-to",
    "Explanation": "explanation",
    "Reference": "reference",
    "Decisions": "adr",
}
GROUPED = ("how-to",)
"""Sections with groups. The first page of such a section lists its pages under headings."""

ORDER = (
    *("README", "first-service"),
    *(
        "architecture",
        "delivery",
        "ordering",
        "api",
        "command-line",
        "settings",
        "errors",
        "wire-format",
        "wire-examples",
        "topology",
    ),
)
"""Order of the pages in a section. Pages that are not listed here follow, sorted by name."""

WITHOUT_SIDEBAR = "---\nhide:\n  - navigation\n---\n\n"
"""Front matter that hides the sidebar of the first page, because its section has no other page."""

TABLE = re.compile(r"<table>.*?</table>", flags=re.DOTALL)
ROW = re.compile(r"<tr>.*?</tr>", flags=re.DOTALL)
HEADING = re.compile(r"<th(?:\s[^>]*)?>(.*?)</th>", flags=re.DOTALL)
CELL = re.compile(r"<td[^>]*>(.*?)</td>", flags=re.DOTALL)
MAX_CHARACTERS, MAX_COLUMNS = 60, 6
"""Maximum characters of a cell without a sentence, and maximum columns of a narrow table."""
TAG = re.compile(r"<[^>]+>")
LINK = re.compile(r"(\[[^\]]*\]\()([^)\s]+)(\))")
CODE = re.compile(r"`[^`]+`")
FENCE = re.compile(r"^\s*(`{3,}|~{3,})")
LANGUAGES = {
    ".py": "python",
    ".mjs": "javascript",
    ".sh": "sh",
    ".toml": "toml",
    ".yml": "yaml",
    ".json": "json",
    ".txt": "text",
    ".md": "markdown",
    "": "text",
}
SHOWN = "source"
"""Folder of the site for the pages that show files."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Set the navigation."""
    _, contributing, *others = FROM_ROOT.values()
    config.nav = [
        {"Home": "index.md"},
        *({title: _navigation(folder)} for title, folder in SECTIONS.items() if _pages(folder)),
        {"Glossary": "glossary.md"},
        {"Project": [contributing, *_pages("contributing"), *others, *MEASURED]},
    ]
    return config


def _navigation(folder: str) -> list[str | dict[str, list[str]]]:
    """Return the pages of a section, in the groups that its first page has as headings."""
    groups = groups_of(ROOT / DOCS / folder / "README.md") if folder in GROUPED else {}
    grouped = {page for pages in groups.values() for page in pages}
    return [
        *(page for page in _pages(folder) if Path(page).name not in grouped),
        *({title: [f"{folder}/{page}" for page in pages]} for title, pages in groups.items()),
    ]


def groups_of(index: Path) -> dict[str, list[str]]:
    """Return the groups of a section's first page: the pages that each heading lists."""
    _, *groups = re.split(r"^## ", index.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        group.partition("\n")[0]: re.findall(r"^- \[[^\]]+\]\(([^)]+)\)", group, re.MULTILINE)
        for group in groups
    }


def _pages(folder: str) -> list[str]:
    found = (path for path in (ROOT / DOCS / folder).glob("*.md") if path.stem != "template")
    places = {stem: place for place, stem in enumerate(ORDER)}
    return [
        f"{folder}/{path.name}"
        for path in sorted(found, key=lambda path: (places.get(path.stem, len(ORDER)), path.name))
    ]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in the folder `docs`."""
    for name, uri in FROM_ROOT.items():
        head = WITHOUT_SIDEBAR if uri == "index.md" else ""
        files.append(
            File.generated(config, uri, content=head + (ROOT / name).read_text(encoding="utf-8"))
        )
    for path in sorted(
        {target for page in _sources() for target in _linked(page) if _is_shown(target)}
    ):
        files.append(File.generated(config, _page_of(path), content=_shown(path)))
    return files


def _sources() -> Iterator[Path]:
    yield from (ROOT / name for name in FROM_ROOT)
    yield from (ROOT / DOCS).rglob("*.md")


def _linked(page: Path) -> Iterator[Path]:
    """Yield the files and folders to which a page links, and the files in these folders."""
    for _, target, _ in LINK.findall(page.read_text(encoding="utf-8")):
        if _is_relative(target):
            path = (page.parent / target.partition("#")[0]).resolve()
            yield path
            yield from (
                each for each in path.glob("*") if each.is_file() and each.suffix in LANGUAGES
            )


def _is_relative(target: str) -> bool:
    return not target.startswith(("#", "…")) and "://" not in target


def _is_shown(path: Path) -> bool:
    """Return True if the site needs a page that shows this file or folder of the repository.

    Files in `docs` and in `FROM_ROOT` need none, because they are pages themselves.
    """
    if (
        not path.is_relative_to(ROOT)
        or path.is_relative_to(ROOT / DOCS)
        or path.relative_to(ROOT).as_posix() in FROM_ROOT
    ):
        return False
    return path.exists()  # MkDocs reports a link to a missing file


def _page_of(path: Path) -> str:
    """Return the path in the site of a file or folder of the repository."""
    name = path.relative_to(ROOT).as_posix()
    if name in FROM_ROOT:
        return FROM_ROOT[name]
    if path.is_relative_to(ROOT / DOCS):
        return path.relative_to(ROOT / DOCS).as_posix()
    if path.is_dir():
        return f"{SHOWN}/{name}/index.md"
    return f"{SHOWN}/{name}.md" if path.suffix in LANGUAGES else f"{SHOWN}/{name}"


def _shown(path: Path) -> str | bytes:
    """Return a page that shows a file or lists a folder. A binary file is returned unchanged."""
    name = path.relative_to(ROOT).as_posix()
    head = f"---\nsearch:\n  exclude: true\n---\n\n# {name}\n\n"
    if path.is_dir():
        inside = sorted(
            each.name for each in path.iterdir() if each.is_file() and each.suffix in LANGUAGES
        )
        return head + "\n".join(f"- [{each}]({each}.md)" for each in inside) + "\n"
    if path.suffix not in LANGUAGES:
        return path.read_bytes()
    return f"{head}``````{LANGUAGES[path.suffix]}\n{path.read_text(encoding='utf-8')}``````\n"


def on_page_markdown(
    markdown: str,
    *,
    page: Page,
    config: MkDocsConfig,  # noqa: ARG001 - MkDocs passes it by name
    files: Files,  # noqa: ARG001 - as above
) -> str:
    """Replace the links between files of the repository by links between pages of the site."""
    here = page.file.src_uri
    if here.startswith(f"{SHOWN}/"):
        return markdown
    origin = next(
        (ROOT / name for name, uri in FROM_ROOT.items() if uri == here), ROOT / DOCS / here
    )
    return "".join(
        _rewritten(line, origin, here) if is_prose else line for line, is_prose in _lines(markdown)
    )


def on_page_content(
    html: str,
    *,
    page: Page,  # noqa: ARG001 - MkDocs passes it by name
    config: MkDocsConfig,  # noqa: ARG001 - as above
    files: Files,  # noqa: ARG001 - as above
) -> str:
    """Give each cell of a table the name of its column, which a narrow screen shows beside it."""
    return TABLE.sub(lambda table: _label_cells(table[0]), html)


def _label_cells(table: str) -> str:
    """Add the attribute `data-column` to each cell. A wide table gets `data-rows`, too."""
    names = [TAG.sub("", heading) for heading in HEADING.findall(table)]

    def label(row: re.Match[str]) -> str:
        first, *cells = row[0].split("<td")
        return first + "".join(
            f'<td data-column="{name.replace(chr(34), "&quot;")}"{cell}'
            for name, cell in zip(names, cells, strict=True)
        )

    labelled = ROW.sub(lambda row: label(row) if "<td" in row[0] else row[0], table)
    return (
        labelled.replace("<table>", '<table data-rows="blocks">') if _is_wide(table) else labelled
    )


def _is_wide(table: str) -> bool:
    """Return True if a table has too many columns of sentences for the width of a page."""
    sentences = (cell for cell in CELL.findall(table) if len(TAG.sub("", cell)) > MAX_CHARACTERS)
    return len(HEADING.findall(table)) > MAX_COLUMNS and any(sentences)


def _lines(markdown: str) -> Iterator[tuple[str, bool]]:
    """Yield each line, with True if the line is outside of fenced blocks."""
    fence = ""
    for line in markdown.splitlines(keepends=True):
        found = FENCE.match(line)
        yield line, not fence and not found
        if found and not fence:
            fence = found[1]
        elif found and found[1].startswith(fence):
            fence = ""


def _rewritten(line: str, origin: Path, here: str) -> str:
    def leads(match: re.Match[str]) -> str:
        before, target, after = match.groups()
        if not _is_relative(target):
            return match[0]
        file, mark, anchor = target.partition("#")
        path = (origin.parent / file).resolve()
        uri = (
            posixpath.relpath(_page_of(path), posixpath.dirname(here))
            if path.is_relative_to(ROOT)
            else file
        )
        return f"{before}{uri}{mark}{anchor}{after}"

    return LINK.sub(leads, _unescaped(line) if line.startswith("|") else line)


def _unescaped(row: str) -> str:
    """Remove the backslashes before `|` in code spans of a table row.

    Git hosts need these backslashes, but Python-Markdown would show them.
    """
    return CODE.sub(lambda code: code[0].replace("\\|", "|"), row)
