import io
import sys
from pathlib import Path

import pytest
import typer
from pydantic import BaseModel, ConfigDict
from typing_extensions import override

from bus import Event, InvalidArgument, NotFound, Request, contract
from bus.cli.payload_input import message_from
from bus.contracts.contract import Catalog, contract_of
from bus.errors import ContractViolation

SECRET = "Eleonora Quist"
catalog = Catalog()


class Address(BaseModel):
    street: str


@contract("clinic.admit", version=1, catalog=catalog)
class Admit(Request[None]):
    patient: str
    age: int = 0
    address: Address | None = None


@contract("clinic.opened", version=1, catalog=catalog)
class Opened(Event):
    """Has no fields."""


@contract("clinic.noted", version=1, catalog=catalog)
class Noted(Event):
    model_config = ConfigDict(extra="allow")


ADMIT = contract_of(Admit)


class Terminal(io.TextIOWrapper):
    @override
    def isatty(self) -> bool:
        return True


def piped(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_payload_comes_from_an_argument_a_file_or_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f'{{"patient": "{SECRET}"}}'
    file = tmp_path / "payload.json"
    file.write_text(text, encoding="utf-8")
    expected = Admit(patient=SECRET)
    assert message_from(ADMIT, [text], None) == expected
    assert message_from(ADMIT, [], file) == expected
    for given, path in (([], None), (["-"], None), ([], Path("-"))):
        piped(monkeypatch, text.encode())
        assert message_from(ADMIT, given, path) == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            f'{{"patient": ["{SECRET}"]}}',
            "clinic.admit.v1: patient: must be a string. Fields of the contract: patient, age, ",
        ),
        (f'{{"patient": "x", "age": "{SECRET}"}}', "age: must be an integer."),
        (f'{{"patient": "x", "{SECRET}": 1}}', "unknown field, whose name is not shown"),
        (
            '{"patient": "x", "agee": 1}',
            "unknown field agee, did you mean age? Fields of the contract",
        ),
        (
            f'{{"patient": "x", "address": {{"street": "x", "{SECRET}": 1}}}}',
            "address: unknown field, whose name is not shown (known fields: street).",
        ),
        ("{}", "patient: is missing."),
        ("[]", "the payload must be an object."),
    ],
)
def test_what_does_not_fit_is_told_by_field_and_rule_and_without_values(
    text: str, told: str
) -> None:
    with pytest.raises(ContractViolation) as caught:
        message_from(ADMIT, [text], None)
    assert told in str(caught.value)
    assert "`bus contracts show clinic.admit.v1`" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.__context__)


def test_the_fields_are_listed_once_if_the_name_of_an_unknown_field_is_not_shown() -> None:
    with pytest.raises(ContractViolation) as caught:
        message_from(ADMIT, [f'{{"patient": "x", "{SECRET}": 1}}'], None)
    assert str(caught.value).count("patient") == 1
    assert str(caught.value).endswith("). See `bus contracts show clinic.admit.v1`.")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f'{{"patient"\n "{SECRET}"}}', "line 2, column 2"),
        ("patient=Quist", "line 1, column 1"),
        (f'{{"patient": "{SECRET}', "line 1, column 13: Unterminated string"),
        ('{"patient": "a\n"}', "line 1, column 15: Invalid control character"),
    ],
)
def test_what_is_no_json_is_told_by_its_place(text: str, told: str) -> None:
    with pytest.raises(InvalidArgument, match="not JSON") as caught:
        message_from(ADMIT, [text], None)
    assert told in str(caught.value)
    assert "Quist" not in str(caught.value)
    assert not str(caught.value).endswith((" at", " starting"))


def test_bytes_that_are_no_text_are_told_by_their_offset(tmp_path: Path) -> None:
    (tmp_path / "payload").write_bytes(b'{"patient": "\xff"}')
    with pytest.raises(InvalidArgument, match="is not UTF-8 text, because the byte at offset 13 "):
        message_from(ADMIT, [], tmp_path / "payload")


def test_a_byte_order_mark_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = b'\xef\xbb\xbf{"patient": "x"}'
    (tmp_path / "payload").write_bytes(text)
    assert message_from(ADMIT, [], tmp_path / "payload") == Admit(patient="x")
    piped(monkeypatch, text)
    assert message_from(ADMIT, [], None) == Admit(patient="x")
    piped(monkeypatch, b"\xef\xbb\xbf\r\n")
    assert message_from(contract_of(Opened), [], None) == Opened()


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_payload_in_utf_16_is_refused_with_advice(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    piped(monkeypatch, f'{{"patient": "{SECRET}"}}'.encode(encoding))
    with pytest.raises(
        InvalidArgument, match=rf"the payload is {encoding[:6].upper()} text, .*\. Save it as UTF-8"
    ):
        message_from(ADMIT, [], None)


def test_a_model_that_takes_more_than_its_fields_gets_them() -> None:
    message = message_from(contract_of(Noted), ['{"more": 1}'], None)
    assert message.model_extra == {"more": 1}


def test_a_message_without_required_fields_needs_no_payload(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b"never read")))
    assert message_from(contract_of(Opened), [], None) == Opened()
    with pytest.raises(InvalidArgument, match="the payload is missing"):
        message_from(ADMIT, [], None)


def test_an_empty_standard_input_that_was_asked_for_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    piped(monkeypatch, b"\n")
    with pytest.raises(InvalidArgument, match="the payload is missing"):
        message_from(contract_of(Opened), ["-"], None)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n"])
def test_an_empty_file_is_told_by_its_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "payload.json").write_bytes(content)
    with pytest.raises(InvalidArgument, match=r"payload\.json is empty\. Pass the payload as"):
        message_from(contract_of(Opened), [], tmp_path / "payload.json")


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="No such file"):
        message_from(ADMIT, [], tmp_path / "payload.json")


@pytest.mark.parametrize(("given", "file"), [(["{}", "x"], None), (["{}"], Path("payload.json"))])
def test_two_payloads_are_a_usage_error(given: list[str], file: Path | None) -> None:
    with pytest.raises(typer.BadParameter):
        message_from(ADMIT, given, file)
