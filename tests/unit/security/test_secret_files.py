import logging
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.errors import ConfigurationError
from bus.security.secret_files import (
    GROUP_AND_OTHERS,
    MAX_KEY_FILE_BYTES,
    MAX_PASSWORD_FILE_BYTES,
    PasswordFile,
    read_password,
    read_private_file,
    read_secret_file,
)

SECRET = "hunter2"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    written = tmp_path / "token"
    written.write_text(SECRET)
    written.chmod(0o644)
    return written


# --- Passwords of the broker ---


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_password_is_the_files_line_without_its_end(path: Path, end: str) -> None:
    path.write_bytes(f" {SECRET} {end}".encode())
    assert read_password(path).get_secret_value() == f" {SECRET} "


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is empty"),
        (b"\n", "is empty"),
        (
            f"{SECRET}\n{SECRET}\n".encode(),
            "has more than one line, or characters that cannot be printed",
        ),
        (f"{SECRET}\0".encode(), "has more than one line, or characters that cannot be printed"),
        (SECRET.encode() * MAX_PASSWORD_FILE_BYTES, "is larger than 65536 bytes"),
        (f"{SECRET}\xff".encode("latin-1"), "is not UTF-8 text"),
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
        ConfigurationError,
        match=rf"^BUS_PASSWORD_FILE: {path} has mode 646\. .* write .*: run `chmod o-w {path}`\.$",
    ):
        read_password(path)
    path.chmod(0o664)
    assert read_password(path).get_secret_value() == SECRET


def test_a_directory_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for each in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(
            ConfigurationError, match=r"cannot be read: Is a directory|is not a regular file"
        ):
            read_password(each)


def test_the_first_look_has_to_find_a_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        PasswordFile(tmp_path / "nothing").read()


@pytest.mark.parametrize(
    "value", ["hunter2-secret", "/hunter2/secret", "hunter2" * 1000, "hunter2\0", "hunter2\ud800"]
)
def test_the_error_of_a_password_in_place_of_its_file_does_not_show_it(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^BUS_PASSWORD_FILE: the path \(") as caught:
        PasswordFile(Path(value)).read()
    assert "may be the password itself" in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "problem"), [("a\0", "a null byte"), ("a\ud800", "a lone surrogate")], ids=ascii
)
def test_a_path_that_cannot_exist_is_refused_with_the_reason(
    tmp_path: Path, name: str, problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"the path contains {problem}$"):
        read_password(tmp_path / name)


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
    """Replace a token as Kubernetes does.

    `token` is a link into `..data`, which is a link to a directory that is replaced atomically.
    """
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


# --- Files that group and others must not access ---


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o640, 0o620, 0o610])
def test_a_key_file_that_admits_group_or_others_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    with pytest.raises(
        ConfigurationError,
        match=rf"^BUS_KEY: {path} has mode {mode:o}\. Only its owner .*: run `chmod 600 {path}`\. ",
    ):
        read_private_file(path, "BUS_KEY")
    path.chmod(0o400)
    assert read_private_file(path, "BUS_KEY") == SECRET


def _pretend(monkeypatch: pytest.MonkeyPatch, *, owner: int, process: int) -> None:
    """Report `owner` as the owner of each open file, and `process` as the user of this process."""
    fstat = os.fstat

    def owned(descriptor: int) -> os.stat_result:
        fields = list(fstat(descriptor))
        fields[stat.ST_UID] = owner
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", owned)
    monkeypatch.setattr(os, "geteuid", lambda: process)


@pytest.mark.parametrize("mode", [0o440, 0o640])
def test_the_group_may_read_a_key_file_of_root_as_fsgroup_of_kubernetes_mounts_it(
    path: Path, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.chmod(mode)
    _pretend(monkeypatch, owner=0, process=10001)
    assert read_private_file(path, "BUS_KEY") == SECRET


@pytest.mark.parametrize(
    ("owner", "process", "mode"),
    [
        (0, 10001, 0o444),
        (0, 10001, 0o460),
        (0, 10001, 0o450),
        (0, 10001, 0o642),
        (10001, 10001, 0o440),
        (10002, 10001, 0o440),
        (0, 0, 0o440),
    ],
    ids=[
        "others may read",
        "the group may write",
        "the group may execute",
        "others may write",
        "the file of the service itself",
        "the file of another user",
        "the process of root",
    ],
)
def test_any_other_key_file_with_access_for_the_group_is_refused(
    path: Path, owner: int, process: int, mode: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.chmod(mode)
    _pretend(monkeypatch, owner=owner, process=process)
    with pytest.raises(ConfigurationError, match=rf"has mode {mode:o}\. .* set fsGroup\.$"):
        read_private_file(path, "BUS_KEY")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (SECRET.encode() * MAX_KEY_FILE_BYTES, "is larger than 1048576 bytes"),
        (f"{SECRET}\xff".encode("latin-1"), "is not UTF-8 text"),
    ],
)
def test_a_key_file_that_is_too_large_or_no_text_is_refused_and_not_shown(
    path: Path, content: bytes, why: str
) -> None:
    path.chmod(0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"^BUS_KEY: {path} {why}") as caught:
        read_private_file(path, "BUS_KEY")
    assert SECRET not in str(caught.value)


def test_a_file_of_exactly_the_largest_size_is_read(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"k" * MAX_KEY_FILE_BYTES)
    assert len(read_private_file(path, "BUS_KEY")) == MAX_KEY_FILE_BYTES


def test_a_pipe_is_read_if_the_file_is_read_once(tmp_path: Path) -> None:
    """Read a pipe, which the shell passes for `--passwords <(decrypt passwords.toml.age)`."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, mode=0o600)
    writer = threading.Thread(target=pipe.write_text, args=(SECRET,))
    writer.start()
    text = read_secret_file(
        pipe,
        str(pipe),
        forbidden_mode=GROUP_AND_OTHERS,
        correction="Run `chmod 600`.",
        max_bytes=100,
        accepts_pipe=True,
    )
    writer.join()
    assert text == SECRET


def test_a_directory_that_is_refused_leaves_no_descriptor_open(tmp_path: Path) -> None:
    before = _next_descriptor()
    with pytest.raises(ConfigurationError, match="Is a directory"):
        read_private_file(tmp_path, "BUS_KEY")
    assert _next_descriptor() == before


def _next_descriptor() -> int:
    descriptor = os.open(os.devnull, os.O_RDONLY)
    os.close(descriptor)
    return descriptor
