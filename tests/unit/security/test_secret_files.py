import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.errors import ConfigurationError
from bus.security.secret_files import MAX_PASSWORD_FILE_BYTES, PasswordFile, read_password

SECRET = "hunter2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "token"
    written.write_text(SECRET)
    written.chmod(0o644)
    return written


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_password_is_the_files_line_without_its_end(path: Path, end: str) -> None:
    path.write_bytes(f" {SECRET} {end}".encode())
    assert read_password(path).get_secret_value() == f" {SECRET} "


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (f"{SECRET}\n{SECRET}\n".encode(), "more than one line"),
        (f"{SECRET}\0".encode(), "more than one line"),
        (SECRET.encode() * MAX_PASSWORD_FILE_BYTES, "more than one line"),
        (f"{SECRET}\xff".encode("latin-1"), "is no text"),
    ],
)
def test_what_is_no_password_is_refused_and_not_shown(path: Path, content: bytes, why: str) -> None:
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"^BUS_PASSWORD_FILE: .*{why}") as caught:
        read_password(path)
    assert SECRET not in str(caught.value)


def test_a_file_that_everybody_may_write_is_refused_and_one_that_others_may_read_is_not(
    path: Path,
) -> None:
    path.chmod(0o646)
    with pytest.raises(
        ConfigurationError, match=r"may be written by everybody \(mode 646\); chmod o-w"
    ):
        read_password(path)
    path.chmod(0o664)
    assert read_password(path).get_secret_value() == SECRET


def test_a_directory_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for each in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(
            ConfigurationError, match=r"cannot be read|is no file that can be read again"
        ):
            read_password(each)


def test_the_first_look_has_to_find_a_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        PasswordFile(tmp_path / "nothing").read()


def _emptied(path: Path) -> None:
    path.write_text("")


@pytest.mark.parametrize("spoil", [_emptied, Path.unlink])
def test_while_the_file_cannot_be_read_the_last_good_password_stays_and_that_is_said_once(
    path: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    file = PasswordFile(path)
    assert file.read().get_secret_value() == SECRET
    for _ in range(2):
        caplog.clear()
        spoil(path)
        assert [file.read().get_secret_value() for _ in range(3)] == [SECRET] * 3
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert SECRET not in caplog.text
        assert SECRET not in str(caplog.records[0].__dict__)
        path.write_text(SECRET)
        file.read()


def test_a_file_that_is_replaced_by_another_as_kubernetes_does_it_is_read_anew(
    tmp_path: Path,
) -> None:
    """`token` is a link into `..data`, itself a link to a directory that is replaced as a whole."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(name)
    (tmp_path / "..data").symlink_to("first")
    (tmp_path / "token").symlink_to("..data/token")
    file = PasswordFile(tmp_path / "token")
    assert file.read().get_secret_value() == "first"
    (tmp_path / "..next").symlink_to("second")
    (tmp_path / "..next").replace(tmp_path / "..data")
    assert file.read().get_secret_value() == "second"


def test_no_repr_shows_the_password(path: Path) -> None:
    file = PasswordFile(path)
    assert SECRET not in repr((file, file.read(), vars(file)))
