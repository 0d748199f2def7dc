"""Recordings on the local disk.

Each error has a class, and a text with a remedy and without a patient's name.
"""

import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest

from bus.errors import (
    BusError,
    InvalidArgument,
    NotFound,
    OutOfRange,
    PermissionDenied,
    Unavailable,
)
from workers.transcription.download import Downloads
from workers.transcription.source import Sources, open_file

PATIENT = "Jane-Doe"


@pytest.fixture
def downloads() -> Downloads:
    """Return downloads with a client that reaches no server: these tests read from the disk."""
    transport = httpx.MockTransport(lambda _: httpx.Response(500))
    return Downloads(transport, max_bytes=1000, timeout=httpx.Timeout(1))


@pytest.fixture
def sources(downloads: Downloads) -> Sources:
    return Sources(downloads, max_bytes=1000)


async def content(sources: Sources, url: str) -> bytes:
    async with sources.open(url) as file:
        return file.read()


async def fault(sources: Sources, url: str) -> BusError:
    with pytest.raises(BusError) as raised:
        await content(sources, url)
    assert PATIENT not in str(raised.value)
    assert "\n" not in str(raised.value)
    return raised.value


@pytest.mark.parametrize("form", ["{}", "file:{}", "file://{}", "file://localhost{}"])
async def test_a_file_is_opened_by_path_and_by_url(
    sources: Sources, tmp_path: Path, form: str
) -> None:
    path = tmp_path / "a b.wav"
    path.write_bytes(b"sound")
    name = str(path).replace(" ", "%20") if ":" in form else str(path)
    assert await content(sources, form.format(name)) == b"sound"


async def test_a_file_is_closed_afterwards(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"sound")
    async with sources.open(str(tmp_path / "a.wav")) as file:
        assert not file.closed
    assert file.closed


async def test_a_missing_file_is_not_found(sources: Sources, tmp_path: Path) -> None:
    assert isinstance(await fault(sources, str(tmp_path / PATIENT)), NotFound)
    assert isinstance(await fault(sources, f"file:///nowhere/{PATIENT}.wav"), NotFound)


async def test_a_directory_is_no_recording(sources: Sources, tmp_path: Path) -> None:
    assert "is a directory" in str(await fault(sources, str(tmp_path)))


async def test_pipes_sockets_and_devices_are_refused_without_waiting(
    sources: Sources, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / PATIENT)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path in (tmp_path / PATIENT, tmp_path / "socket", Path("/dev/zero")):
            assert isinstance(await fault(sources, str(path)), InvalidArgument)


async def test_an_empty_file_is_no_recording(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / PATIENT).touch()
    error = await fault(sources, str(tmp_path / PATIENT))
    assert isinstance(error, InvalidArgument)
    assert "0 bytes" in str(error)


async def test_a_file_over_the_limit_is_out_of_range_and_not_tried_again(
    sources: Sources, tmp_path: Path
) -> None:
    (tmp_path / PATIENT).write_bytes(bytes(1001))
    error = await fault(sources, str(tmp_path / PATIENT))
    assert isinstance(error, OutOfRange)
    assert not error.retryable


@pytest.mark.parametrize(
    ("errno", "expected"),
    [
        (13, PermissionDenied),
        (1, PermissionDenied),
        (20, NotFound),
        (40, InvalidArgument),
        (36, InvalidArgument),
        (5, Unavailable),
    ],
)
async def test_each_fault_of_the_system_has_its_class(
    sources: Sources,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    errno: int,
    expected: type[BusError],
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno, "as told", PATIENT)

    (tmp_path / "a.wav").write_bytes(b"sound")
    monkeypatch.setattr(os, "open", fail)
    assert type(await fault(sources, str(tmp_path / "a.wav"))) is expected


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/Jane-Doe",
        "data:audio/wav;base64,Jane-Doe",
        "ftp://h/Jane-Doe",
        "file://host/Jane-Doe",
    ],
)
async def test_another_scheme_is_refused(sources: Sources, url: str) -> None:
    assert isinstance(await fault(sources, url), InvalidArgument)


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1/Jane-Doe",
        "http:///Jane-Doe",
        "http://h:99999999/Jane-Doe",
        "/a\0Jane-Doe",
        "http://h/\x01Jane-Doe",
    ],
)
async def test_what_is_no_url_or_path_is_refused(sources: Sources, url: str) -> None:
    assert isinstance(await fault(sources, url), InvalidArgument)


async def test_only_files_inside_the_roots_are_read_wherever_links_lead(
    downloads: Downloads, tmp_path: Path
) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    (inside / "a.wav").write_bytes(b"sound")
    (outside / "b.wav").write_bytes(b"secret")
    (inside / "link.wav").symlink_to(outside / "b.wav")
    (outside / "back.wav").symlink_to(inside / "a.wav")
    sources = Sources(downloads, max_bytes=1000, roots=[inside])
    assert await content(sources, str(inside / "a.wav")) == b"sound"
    assert await content(sources, str(outside / "back.wav")) == b"sound"
    for path in (
        outside / "b.wav",
        inside / "link.wav",
        inside / ".." / "out" / "b.wav",
        outside / "missing",
    ):
        assert isinstance(await fault(sources, str(path)), PermissionDenied)


async def test_links_inside_the_roots_that_stay_inside_are_followed(
    downloads: Downloads, tmp_path: Path
) -> None:
    inside = tmp_path / "in"
    (inside / "2026" / "may").mkdir(parents=True)
    (inside / "2026" / "may" / "a.wav").write_bytes(b"sound")
    (inside / "latest").symlink_to("2026/may")
    (inside / "b.wav").symlink_to("latest/a.wav")
    (tmp_path / "root").symlink_to(inside)
    sources = Sources(downloads, max_bytes=1000, roots=[tmp_path / "root"])
    for path in (inside / "latest" / "a.wav", inside / "b.wav", tmp_path / "root" / "b.wav"):
        assert await content(sources, str(path)) == b"sound"


Swap = Callable[[Path, Path], None]


def folder_for_link(inside: Path, outside: Path) -> None:
    (inside / "deep" / "folder").rename(inside / "moved")
    (inside / "deep" / "folder").symlink_to(outside)


def outer_folder_for_link(inside: Path, outside: Path) -> None:
    (inside / "deep").rename(inside / "moved")
    (outside / "folder").symlink_to(".")
    (inside / "deep").symlink_to(outside)


def file_for_link(inside: Path, outside: Path) -> None:
    (inside / "deep" / "folder" / "a.wav").unlink()
    (inside / "deep" / "folder" / "a.wav").symlink_to(outside / "a.wav")


def file_for_pipe(inside: Path, outside: Path) -> None:
    (inside / "deep" / "folder" / "a.wav").unlink()
    os.mkfifo(inside / "deep" / "folder" / "a.wav")


@pytest.mark.parametrize(
    "swap", [folder_for_link, outer_folder_for_link, file_for_link, file_for_pipe]
)
def test_a_path_that_is_swapped_while_it_is_opened_leads_to_no_file_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swap: Swap
) -> None:
    steps = count()
    while True:
        step = next(steps)
        inside, outside = tmp_path / str(step) / "in", tmp_path / str(step) / "out"
        folder = inside / "deep" / "folder"
        folder.mkdir(parents=True)
        outside.mkdir()
        (folder / "a.wav").write_bytes(b"sound")
        (outside / "a.wav").write_bytes(b"secret")
        swap_at(monkeypatch, step, partial(swap, inside, outside))
        before = open_descriptors()
        with (
            suppress(NotFound, InvalidArgument),  # neither is retryable
            open_file(str(folder / "a.wav"), [inside]) as file,
        ):
            assert file.read() == b"sound"
        monkeypatch.undo()
        assert open_descriptors() == before
        if not (inside / "moved").exists() and stat.S_ISREG((folder / "a.wav").lstat().st_mode):
            break  # the file was open before this step
    assert step >= 2


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def swap_at(monkeypatch: pytest.MonkeyPatch, step: int, swap: Callable[[], None]) -> None:
    """Call `swap` before the file operation with this number, after the path is resolved."""
    resolve, calls = os.path.realpath, count()

    def before(call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            if next(calls) == step:
                swap()
            return call(*args, **options)

        return counted

    def resolved(path: str) -> str:
        real = resolve(path)
        for name in ("open", "stat", "fstat"):
            monkeypatch.setattr(os, name, before(getattr(os, name)))
        monkeypatch.setattr(os.path, "realpath", resolve)
        return real

    monkeypatch.setattr(os.path, "realpath", resolved)


async def test_a_folder_that_may_be_entered_but_not_listed_is_passed_through(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags: list[int] = []
    system_open = os.open

    def noted(path: str, mode: int, *args: Any, **options: Any) -> int:
        flags.append(mode)
        return system_open(path, mode, *args, **options)

    (tmp_path / "a.wav").write_bytes(b"sound")
    monkeypatch.setattr(os, "open", noted)
    assert await content(sources, str(tmp_path / "a.wav")) == b"sound"
    # Root may read every folder, so the flag is checked instead of the mode's effect.
    assert all(mode & os.O_PATH for mode in flags if mode & os.O_DIRECTORY)


async def test_a_long_chain_of_links_is_refused(sources: Sources, tmp_path: Path) -> None:
    for number in range(1500):
        (tmp_path / str(number + 1)).symlink_to(str(number))
    assert isinstance(await fault(sources, str(tmp_path / "1500")), InvalidArgument)


async def test_a_loop_of_links_is_refused(sources: Sources, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert isinstance(await fault(sources, str(tmp_path / "a")), InvalidArgument)
    assert isinstance(await fault(sources, str(tmp_path / "a" / "c.wav")), BusError)
