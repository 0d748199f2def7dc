"""Tests of notes and documents in a durable store, with a renderer that renders nothing."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bus import AlreadyExists, Bus, InvalidArgument, NotFound, Router
from bus.testing import MemoryBuses, wall_clock
from contracts.documentation.client import DocumentationClient
from contracts.documentation.v1 import (
    CreateNote,
    Document,
    GenerateDocuments,
    GetDocuments,
    GetNote,
    GetNoteStatus,
    Note,
)
from tests.workers.documents.conversation import a_note
from tests.workers.storage import new_store
from workers.documents import service
from workers.documents.folder import DocumentFolder
from workers.documents.rendering import Rendered
from workers.documents.repository import MemoryRepository, NoteRepository
from workers.documents.service import Documentation
from workers.documents.stored import StoredNotes


class Renderer:
    """A renderer that makes the same bytes of every note."""

    async def render(self, note: Note, format_: str) -> Rendered:
        return Rendered(data=format_.encode(), pages=1)


@dataclass
class Clinic:
    """Two clients of the worker."""

    desk: DocumentationClient
    stranger: DocumentationClient
    bus: Bus


Clinics = Callable[..., AbstractAsyncContextManager[Clinic]]


@pytest.fixture
async def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    url = await new_store(tmp_path / "documentation.db", "documentation")
    monkeypatch.setenv("BUS_STORE", url)
    return url


@pytest.fixture
def clinics(url: str, tmp_path: Path) -> Clinics:
    """Return a function that starts the worker on the one store of this test."""

    @asynccontextmanager
    async def started(repository: NoteRepository | None = None) -> AsyncIterator[Clinic]:
        async with MemoryBuses(clock=wall_clock) as buses:
            worker = await buses.bus("documentation", store=url)
            desk, stranger = await buses.bus("desk"), await buses.bus("stranger")
            await buses.serve(worker, _router(DocumentFolder(tmp_path / "documents"), repository))
            yield Clinic(DocumentationClient(desk), DocumentationClient(stranger), desk)

    return started


def _router(folder: DocumentFolder, repository: NoteRepository | None) -> Router:
    renderer: Any = Renderer()

    @asynccontextmanager
    async def lifespan() -> AsyncIterator[Documentation]:
        async with StoredNotes.opened() as stored:
            yield Documentation(repository=repository or stored, renderer=renderer, folder=folder)

    router = Router("documentation", lifespan=lifespan)
    router.request(CreateNote)(service.create)
    router.request(GetNote)(service.get)
    router.request(GetNoteStatus)(service.get_status)
    router.request(GetDocuments)(service.get_documents)
    router.job(GenerateDocuments)(service.generate)
    return router


async def generated(clinic: Clinic) -> tuple[str, tuple[Document, ...]]:
    """Return the id of a job, and its documents."""
    note = await clinic.desk.create(a_note())
    job = await clinic.desk.generate(note.note_id, "pdf", "docx")
    return job.id, (await job.result(timeout=20)).documents


async def test_documents_are_found_again_after_a_restart_by_the_id_of_their_job_and_by_their_own(
    clinics: Clinics,
) -> None:
    async with clinics() as clinic:
        job_id, documents = await generated(clinic)
        note = await clinic.desk.get(documents[0].note_id)
    async with clinics() as clinic:
        assert await clinic.desk.documents(job_id) == documents
        assert await clinic.desk.document(documents[1].document_id) == documents[1]
        assert (await clinic.desk.status(note.note_id)).documents == documents
        assert await clinic.desk.get(note.note_id) == note


@pytest.mark.parametrize("is_stored", [True, False], ids=["store", "memory"])
async def test_documents_are_found_by_their_owner_only(clinics: Clinics, is_stored: bool) -> None:
    async with clinics(None if is_stored else MemoryRepository(10)) as clinic:
        job_id, documents = await generated(clinic)
        with pytest.raises(NotFound) as of_job:
            await clinic.stranger.documents(job_id)
        with pytest.raises(NotFound) as of_document:
            await clinic.stranger.document(documents[0].document_id)
        with pytest.raises(NotFound) as of_nothing:
            await clinic.stranger.documents("an id that no job has")
        assert await clinic.desk.documents(job_id) == documents
    texts = {str(each.value) for each in (of_job, of_document, of_nothing)}
    assert len(texts) == 1, "an error tells a stranger that the document exists"


async def test_a_request_for_documents_has_exactly_one_id(clinics: Clinics) -> None:
    async with clinics() as clinic:
        for request in (GetDocuments(), GetDocuments(job_id="job", document_id=uuid4())):
            with pytest.raises(InvalidArgument, match="Send one of the two"):
                await clinic.bus.request(request)


async def test_a_stored_note_or_document_of_another_owner_is_refused(url: str) -> None:
    async with StoredNotes.opened() as repository:
        request = a_note()
        note = Note(
            note_id=uuid4(),
            created_at=datetime.now(UTC),
            **request.model_dump(exclude={"content"}),
            content=request.content,
        )
        assert await repository.add(note, owner="desk") == note
        assert await repository.add(note, owner="desk") == note
        with pytest.raises(AlreadyExists, match="another service owns the note"):
            await repository.add(note, owner="stranger")
        document_id = uuid4()
        await repository.claim(note.note_id, document_id, owner="desk")
        await repository.claim(note.note_id, document_id, owner="desk")
        with pytest.raises(AlreadyExists, match="another service owns the document"):
            await repository.claim(note.note_id, document_id, owner="stranger")
        assert await repository.documents(note.note_id) == ()
