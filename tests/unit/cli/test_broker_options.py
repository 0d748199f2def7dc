import io
from pathlib import Path

import pytest
import typer

from bus.cli import main
from bus.cli.broker_options import check_ports, select_password
from bus.errors import ConfigurationError


def test_a_password_comes_from_the_option_a_file_or_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_bytes(b'a b#"%\r\n')
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe\n")))
    assert select_password(None, None) is None
    assert select_password("as typed", None) == "as typed"
    assert select_password(None, tmp_path / "password") == 'a b#"%'
    assert select_password("-", None) == "from a pipe"


def test_a_byte_order_mark_before_a_piped_password_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    piped = "\ufefffrom a pipe\r\n".encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped)))
    assert select_password("-", None) == "from a pipe"


def test_a_piped_password_that_is_not_utf_8_is_an_error_that_names_the_encoding(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    piped = "from a pipe\r\n".encode("utf-16")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(piped)))
    with pytest.raises(ConfigurationError, match="standard input is UTF-16 text"):
        select_password("-", None)


@pytest.mark.parametrize("password", ["", "s\u00fc\u00df", "two\nlines", "x" * 201])
def test_a_password_that_a_broker_cannot_have_is_refused_and_not_shown(
    password: str, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    path.write_text(password)
    for option, file in ((password, None), (None, path)):
        with pytest.raises((typer.BadParameter, ConfigurationError)) as caught:
            select_password(option, file)
        assert not password or password not in str(caught.value)


def test_two_passwords_are_refused(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="cannot be used together"):
        select_password("one", tmp_path / "password")


def test_a_password_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret")
    path.chmod(0o666)
    with pytest.raises(ConfigurationError, match="chmod o-w"):
        select_password(None, path)


@pytest.mark.parametrize(
    "words",
    [
        ["broker", "--keep", ""],
        ["broker", "--password-file", ""],
        ["keys", "list", "--directory", ""],
        ["grants", "check", ""],
    ],
)
def test_an_empty_path_is_refused_and_is_not_the_working_directory(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert (ended.value.code, "the path is empty" in capsys.readouterr().err) == (2, True)


def test_one_port_cannot_serve_two_protocols() -> None:
    check_ports(None, None)
    check_ports(20001, 20002)
    with pytest.raises(typer.BadParameter, match="different ports"):
        check_ports(20001, 20001)
