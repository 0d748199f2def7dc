import re
import runpy
import tomllib
from pathlib import Path

import pytest

import bus
import bus.errors
from bus.cli.errors import exit_code
from bus.contracts.contract import contract_of
from bus.errors import BusError
from bus.messaging.instruments import INSTRUMENTS
from bus.messaging.topology.declarations import BASE_EXCHANGES, job_topology
from bus.messaging.topology.names import RETRY_DELAYS
from bus.runtime.inbound import INBOUND, RECORDING, RUNNING
from bus.runtime.jobs.record_job import record_job
from bus.settings import Settings
from bus.transports.wire_format import KNOWN_HEADERS
from tests.conformance.faststream_world import FastStreamWorld
from tests.unit.ledger import CloseBooks
from workers.transcription.settings import TranscriptionSettings

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
LONGEST_README = 285
ERRORS = [
    kind
    for kind in vars(bus.errors).values()
    if isinstance(kind, type) and issubclass(kind, BusError)
]


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(name: str) -> dict[str, list[str]]:
    """The cells of each table row of a page by its first, without backquotes."""
    lines = (
        line.strip("| ").split(" | ") for line in page(name).splitlines() if line.startswith("| `")
    )
    return {cells[0].strip("`"): [cell.strip(" `") for cell in cells[1:]] for cells in lines}


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_is_in_the_docs_with_its_parent_code_and_whether_it_is_retryable(
    kind: type[BusError],
) -> None:
    written = rows("docs/reference/errors.md")[kind.__name__]
    assert written[:3] == [kind.__bases__[0].__name__, kind.code, "yes" if kind.retryable else "no"]


def test_the_variables_of_services_are_in_the_docs() -> None:
    written = rows("docs/reference/settings.md")
    assert written["BUS_SERVICES__<SERVICE>__<KEY>"][0] == "None"
    assert written["BUS_SERVICE_DEFAULTS__<KEY>"][0] == "None"


@pytest.mark.parametrize(
    "name",
    [name for name in Settings.model_fields if name not in {"services", "service_defaults"}],
)
def test_every_setting_is_in_the_docs_with_its_default(name: str) -> None:
    field = Settings.model_fields[name]
    default = field.default.get_secret_value() if name in {"url", "store"} else field.default
    written = rows("docs/reference/settings.md")[f"BUS_{name.upper()}"]
    assert written[0] == (f"{default:.15g}" if isinstance(default, float) else str(default))


@pytest.mark.parametrize("name", list(TranscriptionSettings.model_fields))
def test_every_setting_of_the_transcription_worker_is_in_the_docs_with_its_default(
    name: str,
) -> None:
    default = TranscriptionSettings.model_fields[name].default
    written = rows("docs/reference/settings.md")[f"TRANSCRIPTION_{name.upper()}"]
    assert written[0] == ("[]" if default in ((), frozenset()) else str(default))


def test_the_command_lines_reference_is_what_the_commands_say_now() -> None:
    printed = runpy.run_path(str(ROOT / "scripts/cli_reference.py"))["page"]()
    assert page("docs/reference/command-line.md") == printed, (
        "python scripts/cli_reference.py > docs/reference/command-line.md"
    )


def test_the_tables_of_the_topology_are_what_the_bus_declares_now() -> None:
    generated = runpy.run_path(str(ROOT / "scripts/topology_reference.py"))["page"]()
    assert page("docs/reference/topology.md") == generated, "python scripts/topology_reference.py"


def test_what_the_help_hides_the_reference_hides_and_what_may_be_given_again_says_so() -> None:
    written = page("docs/reference/command-line.md")
    assert "--notification-fd" not in written
    assert "`--algorithm EdDSA or ES256`" in written
    for command in ("plan", "apply", "verify", "export", "definitions"):
        assert f"bus topology {command} [OPTIONS] MODULE:ROUTER...\n" in written


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_the_exit_code_of_every_error_is_in_the_reference(kind: type[BusError]) -> None:
    lines = page("docs/reference/command-line.md").splitlines()
    assert any(
        line.startswith(f"| {exit_code(kind())} | ") and f"`{kind.__name__}`" in line
        for line in lines
    )


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


def test_the_reference_of_the_python_interface_is_what_the_code_says_now() -> None:
    written = runpy.run_path(str(ROOT / "scripts/api_reference.py"))["page"]()
    assert page("docs/reference/api.md") == written, (
        "write it anew: python scripts/api_reference.py > docs/reference/api.md"
    )


@pytest.mark.parametrize("name", vars(bus)["__all__"])
def test_every_public_name_has_its_place_in_the_reference(name: str) -> None:
    kind = getattr(bus, name)
    if isinstance(kind, type) and issubclass(kind, BusError):
        assert name in rows("docs/reference/errors.md")
    elif kind is not Settings:  # each of its fields is tested above
        assert f"\n### {name}\n" in page("docs/reference/api.md")


def test_every_argument_of_work_queues_and_tiers_has_its_reason_in_the_docs() -> None:
    queues = job_topology(contract_of(CloseBooks), tiers=RETRY_DELAYS).queues
    declared = {name for queue in queues if queue.role != "dead" for name in queue.arguments}
    explained = re.findall(r"x-[a-z-]+", " ".join(rows("docs/reference/topology.md")))
    assert set(explained) == declared


@pytest.mark.parametrize(
    "name", [*RETRY_DELAYS, *(exchange.name for exchange in BASE_EXCHANGES.exchanges)]
)
def test_every_exchange_and_tier_is_in_the_docs(name: str) -> None:
    assert f"`{name}`" in page("docs/reference/topology.md")


@pytest.mark.parametrize("name", KNOWN_HEADERS)
def test_every_header_is_in_the_docs(name: str) -> None:
    headers = page("docs/reference/wire-format.md").partition("## Headers")[2].partition("\n## ")[0]
    assert f"`{name}`" in headers


def test_the_readme_is_short_and_comes_to_code_soon() -> None:
    lines = page("README.md").splitlines()
    assert len(lines) <= LONGEST_README
    assert lines.index('```console title="terminal 1"') < 30
    assert lines.index('```python title="library.py"') < 50


def test_what_the_readme_takes_from_measurements_is_what_they_say() -> None:
    lost = re.search(
        r"None of ([\d,]+) messages, under ([\d,]+) faults", page("docs/reliability.md")
    )
    assert lost
    assert f"[none of {lost[1]} lost](docs/reliability.md) under {lost[2]} faults" in page(
        "README.md"
    )


@pytest.mark.parametrize(
    ("kind", "heading", "peers"),
    [
        ("requests", "RPC, 100 in flight", ("aio-pika, bare", "Celery", "Nameko", "FastStream")),
        ("events", "An event to 1 subscription", ("aio-pika, bare", "FastStream")),
    ],
)
def test_the_rates_in_the_readme_are_the_signed_ones_that_were_measured(
    kind: str, heading: str, peers: tuple[str, ...]
) -> None:
    section = page("docs/benchmarks.md").partition(f"### {heading}\n")[2].partition("\n### ")[0]
    rates = dict(re.findall(r"^\| ([^|]+) \| ([\d,]+) \|", section, re.MULTILINE))
    row = next(line for line in page("README.md").splitlines() if f"| {kind} per second" in line)
    _, ours, theirs = (cell.strip() for cell in row.strip("|").split("|"))
    assert ours == f"[{rates['Trunkline, signed']}, signed](docs/benchmarks.md)"
    named = (f"{peer.removesuffix(', bare')} {rates[peer]}" for peer in peers)
    assert theirs == f"unsigned: {', '.join(named)}"


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial/first-service.md"])
def test_a_page_installs_the_extras_that_its_code_and_commands_need(name: str) -> None:
    text = page(name)
    lines = re.findall(r"^\$ pip install (.*)$", text, re.MULTILINE)
    assert lines
    installed = set(re.findall(r"\w+", "".join(re.findall(r"trunkline\[(.*?)\]", lines[0]))))
    shown = {"--reload": "reload", "Depends": "depends", "bus.testing.plugin": "testing"}
    assert {extra for use, extra in shown.items() if use in text} <= installed


def test_the_page_of_extras_has_each_extra_for_users_and_pages_name_no_other() -> None:
    project = tomllib.loads(page("pyproject.toml"))["project"]
    extras = set(project["optional-dependencies"]) - {"bench", "docs", "dev"}
    listed = page("docs/reference/extras.md").partition("## Install an extra")[0]
    rows_of_extras = re.findall(r"^\| (`.*?) \|", listed, re.MULTILINE)
    assert extras == set(re.findall(r"`(\w+)`", " ".join(rows_of_extras)))
    texts = "".join(path.read_text(encoding="utf-8") for path in PAGES)
    installed = set(re.findall(r"trunkline(?:-[\w.-]+\.whl)?\[([\w,]+)\]", texts))
    assert {extra for group in installed for extra in group.split(",")} <= {*extras, "dev"}


WITH_GRANTS = [path for path in PAGES if 'toml title="grants.toml"' in path.read_text("utf-8")]


@pytest.mark.parametrize("path", WITH_GRANTS, ids=lambda path: path.stem)
def test_a_page_checks_its_grants_after_it_shows_them(path: Path) -> None:
    # The test of the page types this command, so the grants of each page are valid.
    after = path.read_text("utf-8").rpartition('toml title="grants.toml"')[2]
    assert "\n$ bus grants check grants.toml" in after


def test_every_decision_is_in_the_index() -> None:
    index = page("docs/adr/README.md")
    assert all(path.name in index for path in (ROOT / "docs/adr").glob("[0-9]*.md"))


def test_what_is_not_kept_on_faststream_is_in_the_docs_and_nothing_else() -> None:
    named = set(re.findall(r"test_\w+", page("docs/explanation/faststream.md")))
    assert named == set(FastStreamWorld.unkept)
    suite = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests/conformance").glob("test_*.py")
    )
    assert all(f"def {name}(" in suite for name in named)


@pytest.mark.parametrize(
    "name",
    ["images/overview.svg", *(f"explanation/{name}.svg" for name in ("layers", "request", "job"))],
)
def test_a_diagram_shows_what_the_code_says_now(name: str) -> None:
    drawn = runpy.run_path(str(ROOT / "scripts/diagrams.py"))["DIAGRAMS"][name]()
    assert page(f"docs/{name}") == drawn, "draw it anew: python scripts/diagrams.py"


def test_every_word_of_the_glossary_has_a_meaning_and_a_source() -> None:
    terms, _, avoided = page("docs/glossary.md").partition("\n## Do not use\n")
    for text, fewest, columns in ((terms, 40, 3), (avoided, 20, 2)):
        table = [
            line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")
        ][1:]
        assert len(table) > fewest
        assert [
            row for row in table if len(row) != columns or not all(cell.strip(" |") for cell in row)
        ] == []
        words = [row[0].lower() for row in table]
        assert words == sorted(words)


def test_the_page_of_metrics_lists_each_instrument_with_its_labels_and_its_description() -> None:
    section = page("docs/reference/metrics.md").partition("## Instruments")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `.*$", section, re.MULTILINE)
    assert rows == [
        f"| `{each.name}` | {each.kind} | {each.unit} |"
        f" {', '.join(f'`{label}`' for label in each.labels)} | {each.description} |".replace(
            "|  |", "| |"
        )
        for each in INSTRUMENTS
    ]


def test_the_page_of_metrics_explains_each_label() -> None:
    section = page("docs/reference/metrics.md").partition("## Labels")[2].partition("\n## ")[0]
    explained = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    assert sorted(explained) == sorted({label for each in INSTRUMENTS for label in each.labels})


def test_the_architecture_page_lists_the_inbound_stages_in_their_order() -> None:
    section = page("docs/explanation/architecture.md").partition("## An incoming message")[2]
    listed = re.findall(r"^\| `(\w+)` \|", section.partition("\n## ")[0], re.MULTILINE)
    assert listed == [stage.__name__ for stage in INBOUND]


def test_the_architecture_page_lists_the_stages_of_stored_jobs_in_their_order() -> None:
    section = page("docs/explanation/architecture.md").partition("## The two receivers")[2]
    intro, _, table = section.partition("\n## ")[0].partition("The runner takes")
    recorder = re.findall(r"`(\w+)`", intro.partition("writes the row:")[2])
    assert recorder == [*(stage.__name__ for stage in RECORDING), record_job.__name__]
    cells = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    assert re.findall(r"`(\w+)`", " ".join(cells)) == [stage.__name__ for stage in RUNNING]
