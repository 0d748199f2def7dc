"""Tests of the service on the model broker, through its client."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest

from bus import (
    Bus,
    BusError,
    InvalidArgument,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    Unavailable,
    correlated,
)
from bus.contracts.contract import contract_of, encode
from bus.messaging.context import Context, Sender
from bus.messaging.envelope import Envelope, new_id
from bus.testing import MemoryBuses
from contracts.documentation.client import DocumentationClient
from contracts.documentation.v1 import (
    LONGEST_SECTION,
    CreateNote,
    Document,
    GenerateDocuments,
    NoteContent,
)
from tests.polling import until
from tests.workers.documents.conversation import (
    DICTATED,
    ENDLESS,
    SILENT,
    SPOKEN,
    a_note,
    archive,
    file_of,
    from_note_to_documents,
    transcription,
)
from workers.documents import router
from workers.documents.folder import DocumentFolder
from workers.documents.service import Documentation, create, generate


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DOCUMENTS_FOLDER", str(tmp_path / "documents"))
    return tmp_path / "documents"


@pytest.fixture
async def buses() -> AsyncIterator[MemoryBuses]:
    """Yield buses on which only the documentation service runs."""
    async with MemoryBuses() as buses:
        await buses.serve(await buses.bus("documentation"), router)
        yield buses


@pytest.fixture
async def desk(buses: MemoryBuses) -> Bus:
    """Return the caller's bus; the transcription service runs too."""
    await buses.serve(await buses.bus("transcription"), transcription())
    return await buses.bus("desk")


@pytest.fixture
def client(desk: Bus) -> DocumentationClient:
    return DocumentationClient(desk)


async def fault(client: DocumentationClient, **changes: Any) -> BusError:
    with pytest.raises(BusError) as raised:
        await client.create(a_note(**changes), timeout=20)
    return raised.value


async def test_a_note_becomes_two_documents_on_one_correlation_id(
    buses: MemoryBuses, desk: Bus
) -> None:
    router, heard = archive()
    await buses.serve(await buses.bus("archive"), router)
    with correlated("one-id"):
        status, made = await from_note_to_documents(desk)
    assert status.documents == made
    await until(lambda: len(heard) == 2, "an event for each document")
    assert heard == [("one-id", document) for document in made]


async def test_the_same_note_sent_twice_by_its_caller_is_two_notes(
    client: DocumentationClient,
) -> None:
    first, second = await client.create(a_note()), await client.create(a_note())
    assert first.note_id != second.note_id


async def test_a_subjective_section_that_was_sent_stays_whatever_the_transcript_says(
    client: DocumentationClient,
) -> None:
    created = await client.create(
        a_note(transcription_id=SPOKEN, content=NoteContent(subjective="Pain."))
    )
    note = await client.get(created.note_id)
    assert (note.content.subjective, note.transcribed, note.transcription_id) == (
        "Pain.",
        False,
        SPOKEN,
    )


async def test_a_subjective_section_of_spaces_is_none(client: DocumentationClient) -> None:
    created = await client.create(
        a_note(transcription_id=SPOKEN, content=NoteContent(subjective=" \n"))
    )
    assert (await client.get(created.note_id)).content.subjective == DICTATED


async def test_a_transcript_that_is_not_there_is_not_found(client: DocumentationClient) -> None:
    error = await fault(client, transcription_id=uuid4())
    assert isinstance(error, NotFound)
    assert "the transcription_id is unknown" in str(error)


async def test_a_transcript_that_is_too_long_for_a_section_is_told(
    client: DocumentationClient,
) -> None:
    error = await fault(client, transcription_id=ENDLESS)
    assert isinstance(error, OutOfRange)
    assert f"{LONGEST_SECTION:,}" in str(error)


async def test_without_a_transcription_service_only_a_note_that_needs_it_is_refused(
    buses: MemoryBuses,
) -> None:
    client = DocumentationClient(await buses.bus("desk"))
    error = await fault(client, transcription_id=SPOKEN)
    assert isinstance(error, Unavailable)
    assert "transcription service does not answer" in str(error)
    assert (
        await client.create(
            a_note(transcription_id=SPOKEN, content=NoteContent(subjective="Pain."))
        )
    ).status == "draft"


@pytest.mark.parametrize(
    "changes", [{}, {"transcription_id": SILENT}], ids=["no text", "a silent recording"]
)
async def test_a_note_that_says_nothing_is_refused(
    client: DocumentationClient, changes: dict[str, Any]
) -> None:
    error = await fault(client, content=NoteContent(plan=" \n"), **changes)
    assert isinstance(error, InvalidArgument)
    assert "the note has no text" in str(error)


async def test_a_note_that_is_not_there_is_not_found_by_any_of_them(
    client: DocumentationClient,
) -> None:
    with pytest.raises(NotFound, match="the note_id is unknown"):
        await client.get(uuid4())
    with pytest.raises(NotFound, match="the note_id is unknown"):
        await client.status(uuid4())
    job = await client.generate(uuid4(), "pdf")
    with pytest.raises(NotFound, match="the note_id is unknown"):
        await job.result(timeout=20)


async def test_a_note_that_a_pdf_cannot_show_is_told_and_its_docx_is_made(
    client: DocumentationClient,
) -> None:
    created = await client.create(a_note(content=NoteContent(plan="疼痛")))
    with pytest.raises(InvalidArgument, match="Request DOCX instead"):
        await (await client.generate(created.note_id, "pdf")).result(timeout=20)
    made = await (await client.generate(created.note_id, "docx")).result(timeout=20)
    assert [document.format for document in made.documents] == ["docx"]


async def test_a_document_beyond_a_limit_fails_at_once_and_names_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCUMENTS_MAX_BYTES", "1000")
    async with MemoryBuses() as buses:
        await buses.serve(await buses.bus("documentation"), router)
        client = DocumentationClient(await buses.bus("desk"))
        created = await client.create(a_note())
        job = await client.generate(created.note_id, "pdf")
        # The first retry would come after 1 s.
        with pytest.raises(OutOfRange, match=r"1,000 bytes.*DOCUMENTS_MAX_BYTES"):
            await job.result(timeout=0.9)


class Remembers:
    """Bus that records the documents of the published events."""

    def __init__(self) -> None:
        self.told: list[Document] = []

    async def publish(self, event: Any, *, timeout: float | None = None) -> None:
        self.told.append(event.document)


def context(
    message: CreateNote | GenerateDocuments, state: Documentation, bus: Remembers, id_: str
) -> Context:
    envelope = Envelope(
        id=id_,
        type=contract_of(type(message)).type,
        role="job",
        source="test",
        body=encode(message),
    )
    return Context(envelope=envelope, bus=cast("Sender", bus), state=state)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def test_what_comes_again_makes_the_same_note_and_documents_and_no_second_ones(
    folder: Path,
) -> None:
    bus, id_ = Remembers(), new_id()
    async with router.lifespan() as state:
        assert isinstance(state, Documentation)
        note = a_note()
        first, second = [await create(note, context(note, state, bus, id_)) for _ in range(2)]
        assert first == second
        job = GenerateDocuments(note_id=first.note_id, formats=("pdf", "docx"))
        made, again = [
            (await generate(job, context(job, state, bus, id_))).documents for _ in range(2)
        ]
        assert made == again == await state.repository.documents(first.note_id)
    assert names(folder) == {file_of(document).name for document in made}
    assert bus.told == [*made, *made]


async def test_a_job_that_failed_half_way_is_finished_by_its_retry(
    client: DocumentationClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = DocumentFolder.write

    def full_at_the_second(self: DocumentFolder, name: str, data: bytes) -> Path:
        written.append(name)
        if len(written) == 2:
            raise ResourceExhausted("there is no room")
        return write(self, name, data)

    monkeypatch.setattr(DocumentFolder, "write", full_at_the_second)
    created = await client.create(a_note())
    made = (
        await (await client.generate(created.note_id, "pdf", "docx")).result(timeout=40)
    ).documents
    pdf, docx = (file_of(document).name for document in made)
    assert written == [pdf, docx, pdf, docx]
    assert names(folder) == {pdf, docx}
    assert (await client.status(created.note_id)).documents == made


async def test_a_letterhead_that_a_pdf_cannot_show_is_told_at_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("DOCUMENTS_CLINIC_NAME", "診療所")
    with pytest.raises(BusError, match="DOCUMENTS_CLINIC_NAME"):
        async with router.lifespan():
            pass
