"""Recordings on the local disk.

Each error has a class, and a text with a remedy and without a patient's name.
"""

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

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
from workers.transcription.source import Sources

PATIENT = "Jane-Doe"


@pytest.fixture
async def downloads() -> AsyncIterator[Downloads]:
    """Yield downloads with a client that reaches no server: these tests read from the disk."""
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(lambda _: httpx.Response(500))
    ) as client:
        yield Downloads(client, max_bytes=1000, timeout=1)


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
