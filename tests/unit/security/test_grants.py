import json
import os
import re
import time
from pathlib import Path

import pytest

from bus.cli import main
from bus.contracts.contract import Catalog, Event, Job, Request, contract
from bus.errors import ConfigurationError, ContractError
from bus.security.grants import REVEAL, Grants, ServiceGrants
from bus.security.grants_file import MAX_GRANTS_BYTES, load_grants, parse_grants

CATALOG = Catalog()
GRANTS = Path(__file__).parents[3] / "grants.toml"


@contract("library.find", version=1, permission="read:books", catalog=CATALOG)
class Find(Request[None]):
    """A request for books."""


@contract("library.find", version=2, permission="read:books", catalog=CATALOG)
class FindBetter(Request[None]):
    """A request for books."""


@contract("library.scan", version=1, catalog=CATALOG)
class Scan(Job[None]):
    """A job that scans a book."""


@contract("library.scanned", version=1, catalog=CATALOG)
class Scanned(Event):
    """An event of the library."""


@contract("bindery.bound", version=1, permission="events:bindery", catalog=CATALOG)
class Bound(Event):
    """An event of the bindery."""


GOOD = """
# Who may do what.
clients = ["reader"]

[services.reader]
call = ["read:books"]  # "library.scan" is not for readers
consume = ["library.scanned", "events:bindery"]

[services.library]
publish = ["library.scanned"]
call = [
    "library.scan",
]
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "grants.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_grants_say_who_may_call_publish_and_consume(tmp_path: Path) -> None:
    grants = load_grants(_write(tmp_path, GOOD), CATALOG)
    assert grants.may_call("reader", "read:books")
    assert not grants.may_call("reader", "library.scan")
    assert grants.may_call("library", "library.scan")
    assert grants.may_publish("library", "library.scanned")
    assert not grants.may_publish("reader", "library.scanned")
    assert grants.may_consume("reader", "events:bindery")
    assert not grants.may_consume("library", "library.scanned")
    assert grants.scope("reader") == {"read:books"}


def test_a_service_that_has_no_grants_may_do_nothing() -> None:
    grants = Grants({"reader": ServiceGrants(call=frozenset({"read:books"}))})
    assert not grants.may_call("stranger", "read:books")
    assert not grants.may_publish("reader", "read:books")
    assert grants.scope("stranger") == frozenset()


def test_operators_may_what_is_written_and_are_no_services(tmp_path: Path) -> None:
    grants = load_grants(
        _write(
            tmp_path, GOOD + '[operators.ida]\nmay = ["dead-letters.reveal"]\n[operators.bob]\n'
        ),
        CATALOG,
    )
    assert grants.may_operate("ida", REVEAL)
    assert not grants.may_operate("bob", REVEAL)
    assert not grants.may_operate("library", REVEAL)
    assert not grants.knows("ida")


IN_CLIENTS = "(list a service without contracts in clients)"
FAULTS = {
    "another permission": (
        '[services.library]\ncall = ["read:book"]',
        2,
        "unknown permission 'read:book'; did you mean 'read:books'?",
    ),
    "a version": (
        '[services.library]\nconsume = ["library.scanned.v1"]',
        2,
        "did you mean 'library.scanned'?",
    ),
    "a pattern": ('[services.library]\ncall = ["read:*"]', 2, "unknown permission 'read:*'"),
    "another service": (
        '[services.libary]\ncall = ["read:books"]',
        1,
        f"unknown service 'libary' {IN_CLIENTS}; did you mean 'library'?",
    ),
    "another client": (
        'clients = ["reader"]\n[services.raeder]\n[services.reader]',
        2,
        f"unknown service 'raeder' {IN_CLIENTS}; did you mean 'reader'?",
    ),
    "a stranger's event": (
        '[services.library]\n\npublish = ["events:bindery"]',
        3,
        "the event belongs to bindery, and only its owner may publish it",
    ),
    "an event called": (
        '[services.library]\ncall = ["library.scanned"]',
        2,
        "an event cannot be called. Grant publish or consume",
    ),
    "a request consumed": (
        '[services.library]\nconsume = ["read:books"]',
        2,
        "a request or job can only be called. Grant call",
    ),
    "twice": (
        '[services.library]\ncall = ["read:books",\n"read:books"]',
        2,
        "names 'read:books' twice",
    ),
    "another verb": (
        '[services.library]\ncalls = ["read:books"]',
        2,
        (
            "unknown key 'calls' (the keys of a service are call, publish, consume, control and "
            "jobs); did you mean 'call'?"
        ),
    ),
    "another right on the control channel": (
        '[services.library]\ncontrol = ["raed"]',
        2,
        "services.library.control: unknown right 'raed'; did you mean 'read'?",
    ),
    "an order by a service": (
        '[services.library]\ncontrol = ["order"]',
        2,
        "unknown right 'order' (only an operator can have it)",
    ),
    "no list": (
        '[services.library]\ncall = "read:books"',
        2,
        "services.library.call must be a list",
    ),
    "numbers": ("[services.library]\ncall = [1]", 2, "must be a list of names"),
    "another table": (
        '[service.library]\ncall = ["read:books"]',
        1,
        "unknown key 'service' (permissions belong in [services.<name>]); did you mean 'services'?",
    ),
    "no table": ("[services]\nlibrary = 1", 2, "services.library must be a table"),
    "services in a list": ("services = []", 1, "services must be tables"),
    "no name": ('[services."The Library"]\ncall = []', 1, "is not a valid service name"),
    "the bus's own name": ("[services.bus]\ncall = []", 1, "the bus reserves it"),
    "a client that owns": ('clients = ["library"]\n[services.library]', 1, "which owns contracts"),
    "another operation": (
        '[operators.ida]\nmay = ["dead-letter.reveal"]',
        2,
        "unknown operation 'dead-letter.reveal'; did you mean",
    ),
    "an operation that is a permission": (
        '[operators.ida]\nmay = ["read:books"]',
        2,
        "operators.ida.may: unknown operation 'read:books'",
    ),
    "an operator who calls": (
        '[operators.ida]\ncall = ["read:books"]',
        2,
        "unknown key 'call' (the only key of an operator is may)",
    ),
    "an operation that is no list": (
        '[operators.ida]\nmay = "all"',
        2,
        "operators.ida.may must be a list",
    ),
    "an operator that is no table": ("operators = 1", 1, "operators must be tables"),
    "a client without rights": ('clients = ["reader"]', 1, "has no table"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_file_line_and_the_nearest_name(tmp_path: Path, fault: str) -> None:
    text, line, told = FAULTS[fault]
    with pytest.raises(ConfigurationError, match=rf"grants\.toml:{line}: .*{re.escape(told)}"):
        load_grants(_write(tmp_path, text), CATALOG)


def test_a_name_in_a_comment_is_not_where_the_fault_is(tmp_path: Path) -> None:
    text = (
        '# "read:book" was a fault\n[services.library]\n# call = ["read:book"]\n'
        'call = [\n  "read:book",\n]'
    )
    with pytest.raises(
        ConfigurationError, match=r"grants\.toml:5: services\.library\.call: unknown"
    ):
        load_grants(_write(tmp_path, text), CATALOG)


def test_several_faults_are_told_together(tmp_path: Path) -> None:
    text = (
        "[services.library]\ncall = [" + ", ".join(f'"wrong-{number}"' for number in range(7)) + "]"
    )
    with pytest.raises(ConfigurationError, match=r"wrong-0.*wrong-4.*; and 2 more") as told:
        load_grants(_write(tmp_path, text), CATALOG)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    "text",
    [
        "[services.a]\n" + "\n".join(f"key{number} = 1" for number in range(14_000)),
        f"[services.a]\ncall = {[f'p:{n // 2}' for n in range(20_000)]}",
        f"clients = {[f'c{n}' for n in range(24_000)]}",
        f"clients = {[f'c{n}' for n in range(9_000)]}\n"
        + "\n".join(f"[services.d{n}]" for n in range(8_000)),
        f"{'a' * 250_000} = 1",
        f"[services.library]\ncall = ['{'a' * 250_000}']",
    ],
    ids=["keys", "doubled names", "clients", "services", "long key", "long name"],
)
def test_a_large_file_with_thousands_of_faults_is_refused_in_a_moment(text: str) -> None:
    assert len(text) < MAX_GRANTS_BYTES
    began = time.process_time()
    with pytest.raises(ConfigurationError, match=r"grants\.toml:\d+: ") as told:
        parse_grants(text, Path("grants.toml"), CATALOG)
    assert time.process_time() - began < 2
    assert len(str(told.value)) < 3000, "a long name is cut"


@pytest.mark.parametrize(
    "key", ["a." * 16 + "b", "'a' . " * 16 + "b", "[services." + "a." * 130_000]
)
def test_a_key_with_many_dots_is_refused_before_the_file_is_parsed(key: str) -> None:
    text = f"# {'a.' * 20}\n[services.library]\n{key} = 1"
    with pytest.raises(ConfigurationError, match=r"^grants\.toml:3: .* more than 16 parts$"):
        parse_grants(text, Path("grants.toml"), CATALOG)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml cannot be read: No such file"):
        load_grants(tmp_path / "none.toml", CATALOG)
    with pytest.raises(ConfigurationError, match=r"is not TOML: .*line 2"):
        load_grants(_write(tmp_path, "[services.library]\ncall = nobody"), CATALOG)
    (tmp_path / "bytes.toml").write_bytes(b"a\xff")
    with pytest.raises(ConfigurationError, match="is not UTF-8 text, because the byte at offset 1"):
        load_grants(tmp_path / "bytes.toml", CATALOG)


def test_a_byte_order_mark_of_a_grants_file_is_ignored_and_utf_16_is_refused(
    tmp_path: Path,
) -> None:
    file = _write(tmp_path, GOOD)
    expected = load_grants(file, CATALOG)
    file.write_text(GOOD, encoding="utf-8-sig")
    assert load_grants(file, CATALOG) == expected
    file.write_text(GOOD, encoding="utf-16")
    with pytest.raises(ConfigurationError, match=r"is UTF-16 text, .*\. Save it as UTF-8, or name"):
        load_grants(file, CATALOG)


def test_who_knows_some_contracts_only_takes_the_others_as_they_are(tmp_path: Path) -> None:
    known = [each for each in CATALOG if each.service == "bindery"]
    grants = load_grants(_write(tmp_path, GOOD), known, complete=False)
    assert grants.scope("reader") == {"read:books"}
    assert grants.may_consume("reader", "library.scanned")
    assert not grants.may_publish("library", "library.scanned"), "its owner is not known here"
    text = '[services.library]\npublish = ["events:bindery"]'
    with pytest.raises(ConfigurationError, match="only its owner"):
        load_grants(_write(tmp_path, text), known, complete=False)


def test_a_permission_is_the_contracts_name_unless_it_says_another() -> None:
    assert {each.type: each.permission for each in CATALOG} == {
        "library.find.v1": "read:books",
        "library.find.v2": "read:books",
        "library.scan.v1": "library.scan",
        "library.scanned.v1": "library.scanned",
        "bindery.bound.v1": "events:bindery",
    }


@pytest.mark.parametrize("permission", ["", "read books", "Read", "read:*", "r" * 101])
def test_a_permission_that_a_scope_could_not_hold_is_refused(permission: str) -> None:
    with pytest.raises(ContractError, match="is not a valid permission"):
        contract("library.lend", version=1, permission=permission, catalog=Catalog())(
            type("Lend", (Event,), {})
        )


def _bus(*arguments: str) -> int | str | None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def test_the_reference_applications_grants_are_shown_with_what_they_open(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The width of the table depends on the contracts that other tests define.
    monkeypatch.setenv("COLUMNS", "300")
    assert not _bus("grants", "check", str(GRANTS), "--contracts", "contracts", "--json")
    told = json.loads(capsys.readouterr().out)["services"]
    assert told["documentation"]["call"] == {"read:transcriptions": ["transcription.get.v1"]}
    assert told["transcription"]["publish"] == {
        "transcription.completed": ["transcription.completed.v1"]
    }
    assert not _bus("grants", "check", str(GRANTS), "--contracts", "contracts")
    assert "documentation.get-note-status.v1" in capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", "80")
    assert not _bus("grants", "check", str(GRANTS), "--contracts", "contracts")
    assert "  documentation.get-note-status.v1\n" in re.sub(" +\n", "\n", capsys.readouterr().out)


def test_the_grants_that_services_are_given_are_checked_where_no_file_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUS_GRANTS", str(GRANTS))
    assert not _bus("grants", "check", "--contracts", "contracts", "--json")
    assert "documentation" in json.loads(capsys.readouterr().out)["services"]


def test_the_rights_on_the_control_channel_are_read_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rights = '[services.reader]\ncontrol = ["read"]\n[operators.ida]\nmay = ["control.order"]'
    path = _write(tmp_path, f'clients = ["reader"]\n{rights}')
    grants = load_grants(path, CATALOG)
    assert (grants.may_read("reader"), grants.may_read("library")) == (True, False)
    assert grants.may_operate("ida", "control.order")
    assert not grants.may_operate("ida", "control.read")
    assert not grants.may_operate("ida", "control.chaos")
    assert not _bus("grants", "check", str(path), "--contracts", "contracts")
    assert re.search(r"^reader +control +read", capsys.readouterr().out, re.MULTILINE)
    assert not _bus("grants", "check", str(path), "--contracts", "contracts", "--json")
    assert json.loads(capsys.readouterr().out)["services"]["reader"]["control"] == ["read"]


def test_the_rights_on_jobs_of_other_submitters_are_read_and_checked(tmp_path: Path) -> None:
    text = 'clients = ["reader"]\n[services.reader]\njobs = ["{}"]'
    grants = load_grants(_write(tmp_path, text.format("read:library.scan")), CATALOG)
    assert grants.may_access_jobs("reader", "read", "library.scan")
    assert not grants.may_access_jobs("reader", "cancel", "library.scan")
    assert not grants.may_access_jobs("library", "read", "library.scan")
    for wrong in ("read:library.find", "reads:library.scan", "read:library.scan.v1", "read:", "x"):
        faulty = _write(tmp_path, text.format(wrong))
        with pytest.raises(ConfigurationError, match=f"toml:3: .*jobs: unknown right '{wrong}'"):
            load_grants(faulty, CATALOG)
    running = load_grants(_write(tmp_path, text.format("cancel:other.job")), (), complete=False)
    assert running.may_access_jobs("reader", "cancel", "other.job")


def test_the_rights_on_jobs_of_other_submitters_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rights = '[services.reader]\njobs = ["read:transcription.transcribe"]'
    path = _write(tmp_path, f'clients = ["reader"]\n{rights}')
    assert not _bus("grants", "check", str(path), "--contracts", "contracts")
    assert re.search(
        r"^reader +jobs +read:transcription\.transcribe", capsys.readouterr().out, re.MULTILINE
    )
    assert not _bus("grants", "check", str(path), "--contracts", "contracts", "--json")
    shown = json.loads(capsys.readouterr().out)["services"]["reader"]
    assert shown["jobs"] == ["read:transcription.transcribe"]


def test_what_operators_may_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = GRANTS.read_text(encoding="utf-8") + '\n[operators.ida]\nmay = ["dead-letters.reveal"]\n'
    assert not _bus("grants", "check", str(_write(tmp_path, text)), "--contracts", "contracts")
    assert re.search(r"^ida +operate +dead-letters\.reveal", capsys.readouterr().out, re.MULTILINE)
    assert not _bus(
        "grants", "check", str(_write(tmp_path, text)), "--contracts", "contracts", "--json"
    )
    assert json.loads(capsys.readouterr().out)["operators"] == {"ida": ["dead-letters.reveal"]}


def test_what_nobody_may_call_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not _bus(
        "grants",
        "check",
        str(_write(tmp_path, "[services.transcription]")),
        "--contracts",
        "contracts",
    )
    assert (
        "no service may call documentation.create-note.v1 (write:notes)" in capsys.readouterr().err
    )


def test_a_fault_is_an_error_of_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _write(tmp_path, '[services.documentation]\ncall = ["read:transcription"]')
    assert _bus("grants", "check", str(path), "--contracts", "contracts") == os.EX_CONFIG
    told = capsys.readouterr().err
    assert "did you mean 'read:transcriptions'?" in told
    assert told.count("\n") == 1
