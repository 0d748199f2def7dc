"""Commands that read a file: no content of the file is an internal error of the command."""

import os
from pathlib import Path

import pytest

from bus.cli import main

DEEP = 100_000
CONTENTS = {
    "empty": b"",
    "binary": bytes(range(256)) * 40,
    "deep array": b"[" * DEEP + b"]" * DEEP,
    "deep object": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "NUL": b"\0\0",
    "byte order mark": b"\xef\xbb\xbf{}",
    "null": b"null",
    "text": b'"x"',
    "number": b"1e400",
    "digits": b"9" * 9000,
    "NaN": b"NaN",
    "number of keys": b'{"keys": 1}',
    "no keys": b'{"keys": [1, null, [], "x"]}',
    "surrogate": b'{"keys": [{"kid": "\\ud800", "kty": "OKP", "x": "\\ud800"}]}',
}


def exit_of(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("content", CONTENTS)
def test_a_hostile_payload_is_invalid_input(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "payload.json"
    file.write_bytes(CONTENTS[content])
    assert exit_of("call", "transcription.get.v1", "--file", str(file)) == os.EX_DATAERR
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("content", [name for name in CONTENTS if name != "surrogate"])
@pytest.mark.parametrize("file", ["jwks.json", "office.key", "encryption.json"])
def test_a_hostile_key_set_is_an_invalid_configuration_and_is_not_changed(
    file: str, content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ("--directory", str(tmp_path))
    assert exit_of("keys", "new", "office", *folder) == 0
    assert exit_of("keys", "ring", *folder) == 0
    (tmp_path / file).write_bytes(CONTENTS[content])
    command = {
        "jwks.json": ("keys", "list"),
        "office.key": ("keys", "rotate", "office"),
        "encryption.json": ("keys", "ring"),
    }[file]
    assert exit_of(*command, *folder) == os.EX_CONFIG
    assert f"{tmp_path / file} " in capsys.readouterr().err
    assert (tmp_path / file).read_bytes() == CONTENTS[content]


def test_a_byte_order_mark_of_a_key_set_is_ignored_and_utf_16_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ("--directory", str(tmp_path))
    assert exit_of("keys", "new", "office", *folder) == 0
    for file in (tmp_path / "jwks.json", tmp_path / "office.key"):
        file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8-sig")
        assert exit_of("keys", "rotate", "office", *folder) == 0
    (tmp_path / "jwks.json").write_text('{"keys": []}', encoding="utf-16")
    capsys.readouterr()
    assert exit_of("keys", "list", *folder) == os.EX_CONFIG
    assert "jwks.json is UTF-16 text, and must be UTF-8" in capsys.readouterr().err
