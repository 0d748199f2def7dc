"""The folder of the documents."""

import errno
import os
import stat
import time
from pathlib import Path

import pytest

from bus.errors import BusError, ConfigurationError, ResourceExhausted, Unavailable
from workers.documents.folder import ABANDONED_AFTER, DocumentFolder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_document_and_its_folder_are_for_this_user_alone(tmp_path: Path) -> None:
    folder = DocumentFolder(tmp_path / "new" / "documents")
    path = folder.write("a.pdf", b"content")
    assert (mode(folder.path), mode(path)) == (0o700, 0o600)
    assert path.read_bytes() == b"content"


def test_a_document_that_is_written_again_takes_its_own_place(tmp_path: Path) -> None:
    folder = DocumentFolder(tmp_path)
    folder.write("a.pdf", b"first")
    path = folder.write("a.pdf", b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]


def test_a_relative_folder_is_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        DocumentFolder(Path("documents")).write("a.pdf", b"x") == tmp_path / "documents" / "a.pdf"
    )


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, ResourceExhausted),
        (errno.EDQUOT, ResourceExhausted),
        (errno.EROFS, Unavailable),
        (errno.EIO, Unavailable),
    ],
)
def test_a_disk_that_does_not_take_it_leaves_the_old_one_whole_and_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, expected: type[BusError]
) -> None:
    folder = DocumentFolder(tmp_path)
    folder.write("a.pdf", b"old")

    def fail(_: int) -> None:
        raise OSError(number, "as told")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(expected) as raised:
        folder.write("a.pdf", b"new")
    assert raised.value.retryable
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


def test_a_folder_that_cannot_be_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"DOCUMENTS_FOLDER: .*ENOTDIR"):
        DocumentFolder(tmp_path / "file" / "documents")


def test_what_a_killed_process_left_is_swept_and_what_is_being_written_is_not(
    tmp_path: Path,
) -> None:
    for name in (".old.part", ".new.part", "a.pdf"):
        (tmp_path / name).touch()
    long_ago = time.time() - ABANDONED_AFTER - 1
    for name in (".old.part", "a.pdf"):
        os.utime(tmp_path / name, (long_ago, long_ago))
    DocumentFolder(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".new.part", "a.pdf"}
