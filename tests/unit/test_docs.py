import re
from pathlib import Path

import pytest

import bus.errors
from bus.errors import BusError
from bus.settings import Settings
from tests.conformance.faststream_world import FastStreamWorld

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
LONGEST_README = 150
ERRORS = [kind for kind in vars(bus.errors).values() if isinstance(kind, type) and issubclass(kind, BusError)]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(name: str) -> dict[str, list[str]]:
    """The cells of each table row of a page by its first, without backquotes."""
    lines = (line.strip("| ").split(" | ") for line in page(name).splitlines() if line.startswith("| `"))
    return {cells[0].strip("`"): [cell.strip(" `") for cell in cells[1:]] for cells in lines}


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_docs_with_its_parent_code_and_whether_it_is_retryable(kind: type[BusError]) -> None:
    written = rows("docs/reference/errors.md")[kind.__name__]
    assert written[:3] == [kind.__bases__[0].__name__, kind.code, "yes" if kind.retryable else "no"]


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_in_the_docs_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    default = field.default.get_secret_value() if name == "url" else field.default
    written = rows("docs/reference/settings.md")[f"BUS_{name.upper()}"]
    assert written[0] == (f"{default:.15g}" if isinstance(default, float) else str(default))


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for target in LINK.findall(path.read_text(encoding="utf-8")):
        if target.startswith(("https://", "…")):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), f"{target} leads nowhere"
        if anchor:
            assert anchor in anchors(found.read_text(encoding="utf-8")), f"{target} is no heading"


def anchors(text: str) -> set[str]:
    """Headings as GitHub makes links of them."""
    headings = re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short_and_comes_to_code_soon() -> None:
    lines = page("README.md").splitlines()
    assert len(lines) <= LONGEST_README
    assert lines.index("```python") < 50
    assert lines.index("```console") < 20


def test_every_decision_is_in_the_index() -> None:
    index = page("docs/adr/README.md")
    assert all(path.name in index for path in (ROOT / "docs/adr").glob("[0-9]*.md"))


def test_what_is_not_kept_on_faststream_is_in_the_docs_and_nothing_else() -> None:
    named = set(re.findall(r"test_\w+", page("docs/explanation/faststream.md")))
    assert named == set(FastStreamWorld.unkept)
    suite = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests/conformance").glob("test_*.py"))
    assert all(f"def {name}(" in suite for name in named)
