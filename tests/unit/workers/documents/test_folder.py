"""The folder of the documents."""

import errno
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize("replaced", ["folder", "parent", "nothing", "file"])
def test_a_folder_that_is_moved_sends_no_document_elsewhere(tmp_path: Path, replaced: str) -> None:
    parent = tmp_path / "parent"
    folder = DocumentFolder(parent / "documents")
    moved = parent if replaced == "parent" else folder.path
    moved.rename(tmp_path / "moved")
    if replaced == "file":
        folder.path.touch()
    elif replaced != "nothing":
        folder.path.mkdir(parents=True)
    with pytest.raises(Unavailable, match=r"moved or replaced\. Restore it, or restart"):
        folder.write("a.pdf", b"content")
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".pdf", ".part"}]
    if moved.is_dir():
        moved.rename(tmp_path / "other")
    else:
        moved.unlink(missing_ok=True)
    (tmp_path / "moved").rename(moved)
    assert folder.write("a.pdf", b"content").read_bytes() == b"content"


def test_a_folder_that_is_moved_during_a_write_is_not_reported_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DocumentFolder(tmp_path / "documents")
    replace = os.replace

    def replace_after_move(*args: Any, **options: Any) -> None:
        folder.path.rename(tmp_path / "moved")
        folder.path.mkdir()
        replace(*args, **options)

    monkeypatch.setattr(os, "replace", replace_after_move)
    with pytest.raises(Unavailable, match="moved or replaced"):
        folder.write("a.pdf", b"content")
    assert not list(folder.path.iterdir())


def test_a_folder_is_closed_when_nothing_uses_it(tmp_path: Path) -> None:
    before = descriptors()
    folder = DocumentFolder(tmp_path)
    folder.write("a.pdf", b"content")
    assert descriptors() == before + 1
    del folder
    assert descriptors() == before


def descriptors() -> int:
    """Return the number of this process's open descriptors that are directories."""
    modes = []
    for number in range(1024):
        with suppress(OSError):
            modes.append(os.fstat(number).st_mode)
    return sum(map(stat.S_ISDIR, modes))


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
