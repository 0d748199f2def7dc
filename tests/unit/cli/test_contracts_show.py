"""`bus contracts show`: the schemas of a message and of all its answers."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bus.cli import main
from bus.contracts.contract import decode, encode
from bus.errors import ContractViolation
from bus.messaging.envelope import ErrorReply, Progress

MODULE = """
from decimal import Decimal
from pydantic import Field
from bus import Event, Job, Message, Request, Sensitive, contract

class Shelf(Message):
    name: str = Field(alias="shelfName", max_length=8)
    \"\"\"Name that the library uses.\"\"\"

class Place(Message):
    shelf: Shelf
    fee: Decimal | None = None

@contract("library.find", version=1)
class Find(Request[Place | None]):
    title: str

@contract("library.count", version=1, idempotent=True, criticality="sheddable", cache=90)
class Count(Request[Shelf]):
    title: str

@contract("library.drop", version=1)
class Drop(Request[None]):
    title: str

@contract("library.scan", version=1)
class Scan(Job[Place]):
    title: str

@contract("library.scanned", version=1)
class Scanned(Event):
    title: str

@contract("library.lent", version=1)
class Lent(Event):
    reader: Sensitive[str] = Field(min_length=1, max_length=50)
    shelf: str = Field(pattern="^[a-z]+$")
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "shown_library.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("BUS_CONTRACTS", "shown_library")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as ended:
        main(("contracts", "show", *arguments))
    assert (ended.value.code or 0) == code
    return capsys.readouterr()


def answers(capsys: pytest.CaptureFixture[str], type_: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shown(capsys, type_, "--json")[0])
    return {name: found[name] for name in found if name.endswith("_schema")}


def test_the_json_of_a_request_has_the_schema_of_its_optional_reply_and_of_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    schemas = answers(capsys, "library.find.v1")
    reply = schemas["reply_schema"]
    assert reply["anyOf"] == [{"$ref": "#/$defs/Place"}, {"type": "null"}]
    assert reply["$defs"]["Shelf"]["properties"]["shelfName"]["maxLength"] == 8
    assert reply["$defs"]["Shelf"]["required"] == ["shelfName"]
    assert {*schemas["error_schema"]["properties"]} == {*ErrorReply.model_fields}
    assert schemas["progress_schema"] is None


def test_the_json_of_a_job_has_the_schemas_of_result_progress_and_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    schemas = answers(capsys, "library.scan.v1")
    assert schemas["reply_schema"]["title"] == "Place"
    assert schemas["reply_schema"]["required"] == ["shelf"]
    progress = schemas["progress_schema"]["properties"]
    assert {*progress} == {"progress", "note", "error", "number"}
    assert (progress["progress"]["minimum"], progress["progress"]["maximum"]) == (0, 1)
    assert schemas["error_schema"]["required"] == ["code", "message", "retryable"]


def test_a_request_without_content_in_its_reply_has_the_schema_of_null(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert answers(capsys, "library.drop.v1")["reply_schema"] == {"type": "null"}


def test_an_event_has_no_schema_of_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert {*answers(capsys, "library.scanned.v1").values()} == {None}
    _, error = shown(capsys, "library.scanned.v1", "--reply-schema", code=os.EX_CONFIG)
    assert "library.scanned.v1 is an event, which has no reply" in error


def test_the_schema_of_the_reply_alone_is_one_object_for_programs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = answers(capsys, "library.scan.v1")["reply_schema"]
    for options in (("--reply-schema",), ("--reply-schema", "--json")):
        assert json.loads(shown(capsys, "library.scan.v1", *options)[0]) == whole
    payload = json.loads(shown(capsys, "library.scan.v1", "--schema")[0])
    assert {*payload["properties"]} == {"title"}


def test_the_text_shows_the_fields_and_the_schema_of_the_result(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in ("80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        text = shown(capsys, "library.scan.v1")[0]
        assert "  result: Place (shelf, fee)\n" in text
        assert "  progress: Progress (progress, note, error, number)\n" in text
        assert "\nThe result is Place:\n  shelf  Shelf" in text
        _, _, schema = text.partition("\nThe JSON schema of the result:\n")
        assert json.loads(schema)["title"] == "Place"
    text = shown(capsys, "library.find.v1")[0]
    assert "\nThe reply is Place or null:\n" in text
    assert "\nThe JSON schema of the reply:\n" in text
    for type_ in ("library.drop.v1", "library.scanned.v1"):
        assert "JSON schema" not in shown(capsys, type_)[0]


def test_the_bounds_in_the_schema_of_progress_refuse_no_progress() -> None:
    assert decode(Progress, encode(Progress(progress=5))).progress == 5
    with pytest.raises(ContractViolation):
        decode(Progress, b"{}")


def test_the_text_and_the_json_show_the_limits_of_a_field_and_if_it_is_sensitive(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    text = shown(capsys, "library.lent.v1")[0]
    assert "  reader  string, 1 to 50 characters, sensitive" in text
    assert "  shelf   string, pattern ^[a-z]+$" in text
    reader, shelf = json.loads(shown(capsys, "library.lent.v1", "--json")[0])["fields"]
    assert (reader["limits"], reader["sensitive"]) == ("1 to 50 characters", True)
    assert (shelf["limits"], shelf["sensitive"]) == ("pattern ^[a-z]+$", False)


def test_show_names_the_criticality_and_the_cache_of_a_contract(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out, _ = shown(capsys, "library.count.v1")
    assert "criticality: sheddable" in out
    assert "cache: a client keeps a reply for 90 s" in out
    out, _ = shown(capsys, "library.find.v1")
    assert "criticality" not in out
    assert "cache" not in out


def test_the_json_of_a_contract_has_its_criticality_and_its_cache(
    capsys: pytest.CaptureFixture[str],
) -> None:
    counted = json.loads(shown(capsys, "library.count.v1", "--json")[0])
    assert (counted["criticality"], counted["cache"]) == ("sheddable", 90)
    found = json.loads(shown(capsys, "library.find.v1", "--json")[0])
    assert (found["criticality"], found["cache"]) == ("critical", None)
