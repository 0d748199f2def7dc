"""Output of the commands: texts of others on a terminal and in a pipe."""

import io
import json
import time

import pytest
from rich.console import Console
from rich.live import Live
from rich.progress import Progress as ProgressBar
from rich.table import Table
from rich.text import Text

from bus.cli.dead.messages import progress
from bus.cli.dead.table import details, format_payload, show_table
from bus.cli.errors import Reporter
from bus.cli.output import EscapingConsole, print_json, say
from bus.cli.queue_table import notes, table
from bus.cli.queue_watch import update_live
from bus.cli.submit import format_update
from bus.errors import NotFound
from bus.messaging.envelope import Progress
from bus.messaging.fault_record import FaultRecord
from bus.operations.dead_letters import DeadLetter
from bus.operations.queue_inspection import QueueReport, QueueStatus
from bus.transports.rabbitmq.handshake import BrokerInfo
from tests.unit.fakes import envelope

HOSTILE = "\u202ex\x1b]0;y\x07\x9b2J\u2028\u200b\U000e0041\x7f\r\v"
UNSAFE = {*HOSTILE} - {*"x]0;y2J"} | {"\u2029", "\ud800"}


def safe(text: str) -> bool:
    """Return True if the text has its own line ends only, and no unsafe character."""
    return not UNSAFE & {*text} and len(text.splitlines()) == len(text.rstrip("\n").split("\n"))


def console(width: int = 200) -> EscapingConsole:
    return EscapingConsole(file=io.StringIO(), width=width)


def printed(on: Console) -> str:
    assert isinstance(on.file, io.StringIO)
    return on.file.getvalue()


def letter(text: str) -> DeadLetter:
    headers: dict[str, str | int] = {"mine": text, text: "theirs", "dead-where": text}
    sent = envelope(text, role="job", id=text, source=text, correlation_id=text, headers=headers)
    record = FaultRecord(
        by="worker", code=text, reason=text, where=text, frames=(text, text), queue=text, host=text
    )
    body = json.dumps({"note": text}, ensure_ascii=False).encode(errors="surrogatepass")
    return DeadLetter(envelope=sent.replace(body=body), record=record, dead_queue=text)


@pytest.mark.parametrize("width", [80, 200])
def test_a_hostile_dead_letter_is_escaped_in_the_list(width: int) -> None:
    plain = Console(file=io.StringIO(), width=width)
    show_table([letter(HOSTILE)], plain)
    assert safe(printed(plain))
    assert "\\u202ex" in printed(plain)


def test_a_newline_in_a_dead_letter_makes_no_line_in_the_narrow_list() -> None:
    forged = "a.py:1 f\n2026-11-30 00:00:00         1  forged.v1, internal"
    narrow = Console(file=io.StringIO(), width=80)
    show_table([letter(forged)], narrow)
    rows = printed(narrow).splitlines()
    assert len(rows) == 2 + 3
    assert not [row for row in rows if row.startswith("2026")]


def test_a_hostile_dead_letter_is_escaped_when_it_is_shown() -> None:
    plain = Console(file=io.StringIO(), width=200)
    plain.print(details(letter(HOSTILE), now=1))
    assert safe(printed(plain))


def test_a_hostile_payload_is_escaped_and_stays_the_same_json() -> None:
    shown = format_payload(letter(HOSTILE + "\ud800"))
    assert safe(shown)
    assert json.loads(shown) == {"note": HOSTILE + "\ud800"}


@pytest.mark.parametrize("compact", [True, False])
def test_json_of_a_hostile_reply_is_escaped_and_lossless(
    compact: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    value = {HOSTILE: [HOSTILE, "\ud800", "👨\u200d👩\u200d👧 ä"]}
    print_json(value, compact=compact)
    out = capsys.readouterr().out
    assert safe(out)
    assert json.loads(out) == value
    assert "👨\u200d👩\u200d👧 ä" in out


@pytest.mark.parametrize("compact", [True, False])
def test_json_keeps_a_text_that_looks_like_the_code_of_an_emoji(
    compact: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    value = {"text": "at 12:100:30 :bomb:", "\U0001f4af": 1, "x :100:": 2}
    print_json(value, compact=compact)
    assert json.loads(capsys.readouterr().out) == value


def test_no_command_replaces_a_text_with_an_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    text, on = "m:100:7:bomb:", console()
    say(text)
    Reporter(debug=False, console=on)._print_error(NotFound(text))
    grid = Table(text, title=text, caption=text)
    grid.add_row(text)
    on.print(grid)
    on.print(f"[red]{text}[/]", text)
    shown = capsys.readouterr().err + printed(on)
    assert shown.count(text) == 8
    assert "\U0001f4af" not in shown


def test_the_live_queues_keep_a_name_that_looks_like_the_code_of_an_emoji() -> None:
    queue = QueueStatus(name="a.jobs.:100:.v1", service="a", role="jobs", ready=1, consumers=0)
    server = BrokerInfo(product="p", version="1", cluster="c", platform="x")
    report = QueueReport(at=time.time(), server=server, queues=(queue,))
    on = console()
    with Live(console=on, auto_refresh=False) as live:
        update_live(live, report)
    assert ":100:" in printed(on)
    assert "\U0001f4af" not in printed(on)


def test_a_line_about_progress_is_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    say(HOSTILE)
    assert safe(capsys.readouterr().err)


@pytest.mark.parametrize("space", [" ", "\t", "\u3000"])
def test_spaces_in_a_note_or_an_error_forge_no_row_of_the_terminal(
    space: str, capsys: pytest.CaptureFixture[str]
) -> None:
    forged = f"a{space * 120}error: forged"
    on = console(width=80)
    say(forged)
    say(format_update(Progress(progress=0.5, note=forged)))
    Reporter(debug=False, console=on)._print_error(NotFound(forged))
    lines = (capsys.readouterr().err + printed(on)).splitlines()
    assert len(lines) == 3
    assert all(len(line) < 40 for line in lines)


def test_the_note_of_a_job_update_is_one_escaped_line() -> None:
    for error in (None, HOSTILE):
        line = format_update(Progress(progress=0.5, note=f"a\n{HOSTILE}", error=error))
        assert safe(line)
        assert "\n" not in line


def test_the_queues_of_a_hostile_broker_are_escaped_and_their_markup_is_not_followed() -> None:
    name = f"[bold]{HOSTILE}\nforged[/]"
    queue = QueueStatus(
        name=f"{name}.{name}", service=name, role="jobs", ready=1, consumers=0, last_error=name
    )
    server = BrokerInfo(product=HOSTILE, version=HOSTILE, cluster=HOSTILE, platform=HOSTILE)
    plain = Console(file=io.StringIO(), width=400)
    report = QueueReport(at=time.time(), server=server, queues=(queue,))
    plain.print(table(report))
    for note in notes(report):
        plain.print(note, highlight=False)
    assert safe(printed(plain))
    assert not [row for row in printed(plain).splitlines() if row.startswith("forged")]
    assert "[bold]\\u202ex" in printed(plain)


def test_the_console_escapes_each_kind_of_object() -> None:
    on = console()
    grid = Table("name", HOSTILE)
    grid.add_row(HOSTILE, Text(HOSTILE))
    on.print(HOSTILE, Text(HOSTILE), grid)
    on.print(HOSTILE, markup=False, soft_wrap=True)
    with Live(console=on, auto_refresh=False) as live:
        live.update(Text(HOSTILE), refresh=True)
    with ProgressBar(console=on, auto_refresh=False) as bar:
        bar.add_task(HOSTILE)
    assert safe(printed(on))
    assert printed(on).count("\\u202e") == 8


def test_colours_of_the_console_itself_stay() -> None:
    on = EscapingConsole(file=io.StringIO(), force_terminal=True, color_system="standard")
    on.print(f"[red]{HOSTILE}[/]", highlight=False)
    assert printed(on).startswith("\x1b[31m\\u202ex\\u001b]0;y")


def test_a_queue_with_markup_in_its_name_does_not_break_the_progress_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress("[/]queue", 1, {}):
        pass
    assert "[/]queue" in capsys.readouterr().err
