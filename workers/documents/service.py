"""Handlers of the documentation service."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from uuid import UUID, uuid5

from bus import Cancelled, Context, InvalidArgument, NotFound, RetryPolicy, Router
from contracts.documentation.v1 import (
    CreateNote,
    Document,
    DocumentFormat,
    DocumentGenerated,
    GeneratedDocuments,
    GenerateDocuments,
    GetDocuments,
    GetNote,
    GetNoteStatus,
    Note,
    NoteStatus,
)
from workers.documents.folder import DocumentFolder
from workers.documents.process import Renderer
from workers.documents.renderer import Limits
from workers.documents.rendering import Template
from workers.documents.repository import MemoryRepository, NoteRepository
from workers.documents.settings import MAX_PROCESSES, DocumentsSettings, load_settings
from workers.documents.transcripts import transcript_text
from workers.store_choice import has_store

__all__ = ["Documentation", "create", "generate", "get", "get_documents", "get_status", "router"]

NOTES = UUID("b7a54c7e-35b4-5c1f-9a3c-6a2d2d0f7b11")
"""Namespace of the UUIDs (RFC 9562, version 5) that are derived from requests for notes."""
DOCUMENTS = UUID("1d0f4a53-9b86-5e0a-8f57-0c9d5f3b6e22")
"""Namespace of the UUIDs that are derived from a job and a format for documents."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Documentation:
    """State that all handlers share. They access it as `context.state`."""

    repository: NoteRepository
    renderer: Renderer
    folder: DocumentFolder
    now: Callable[[], datetime] = lambda: datetime.now(UTC)


@asynccontextmanager
async def lifespan() -> AsyncIterator[Documentation]:
    """Open the folder for documents, and start the rendering processes. End them at the end."""
    settings = load_settings()
    folder = await asyncio.to_thread(DocumentFolder, settings.folder)
    template = Template.from_settings(settings)
    async with (
        _repository(settings) as repository,
        Renderer.opened(template, _limits(settings), processes=settings.process_count) as renderer,
    ):
        yield Documentation(repository=repository, renderer=renderer, folder=folder)


@asynccontextmanager
async def _repository(settings: DocumentsSettings) -> AsyncIterator[NoteRepository]:
    """Open the store of the service, or a repository in memory if it has none."""
    if not has_store():
        yield MemoryRepository(settings.kept_notes)
        return
    # SQLAlchemy is imported only for a store, and may not be installed.
    stored = import_module("workers.documents.stored")
    async with stored.StoredNotes.opened() as repository:
        yield repository


def _limits(settings: DocumentsSettings) -> Limits:
    return Limits(
        max_seconds=settings.max_seconds,
        max_memory=settings.max_memory,
        max_bytes=settings.max_bytes,
    )


router = Router("documentation", lifespan=lifespan)


@router.request(CreateNote, concurrency=16)
async def create(request: CreateNote, context: Context) -> NoteStatus:
    """Create a note, and return its status.

    If the request is redelivered or the caller retries it, the handler does not create a second
    note.
    """
    state: Documentation = context.state
    note_id, owner = uuid5(NOTES, context.idempotency_key), context.envelope.source
    note = await state.repository.find_own(note_id, owner=owner)
    if note is None:
        note = await state.repository.add(await _note(request, note_id, context), owner=owner)
    return await _status(state, note)


@router.request(GetNote, concurrency=16)
async def get(request: GetNote, context: Context) -> Note:
    """Return the note with this id. Raise `NotFound` if it does not exist."""
    return await _found(context.state, request.note_id)


@router.request(GetNoteStatus, concurrency=16)
async def get_status(request: GetNoteStatus, context: Context) -> NoteStatus:
    """Return the status of the note with this id. Raise `NotFound` if it does not exist."""
    return await _status(context.state, await _found(context.state, request.note_id))


@router.request(GetDocuments, concurrency=16)
async def get_documents(request: GetDocuments, context: Context) -> GeneratedDocuments:
    """Return documents of the sender. Raise `NotFound` for documents of another service."""
    state: Documentation = context.state
    if (request.job_id is None) == (request.document_id is None):
        raise InvalidArgument("the request needs a job_id or a document_id. Send one of the two.")
    documents = await state.repository.find_documents(
        owner=context.envelope.source, job_id=request.job_id, document_id=request.document_id
    )
    if not documents:
        problem = "this service has no documents with this id"
        raise NotFound(f"{problem}. Wait for the job, or generate the documents again.")
    return GeneratedDocuments(documents=documents)


@router.job(
    GenerateDocuments, retry=RetryPolicy(attempts=5), timeout=300, concurrency=MAX_PROCESSES
)
async def generate(job: GenerateDocuments, context: Context) -> GeneratedDocuments:
    """Render the documents, write them, record them, and publish the events.

    If the job is redelivered or retried, the handler writes the same files with the same names
    again. The new files replace the existing files, and the events are published a second time.

    A service may generate documents of a note that another service created. The documents then
    belong to the service that submitted the job, and no other service can replace them.
    """
    state: Documentation = context.state
    note = await _found(state, job.note_id)
    formats = tuple(dict.fromkeys(job.formats))
    documents = []
    for done, format_ in enumerate(formats, start=1):
        if context.cancelled:
            raise Cancelled("the job was cancelled between two documents.")
        document = await _document(note, format_, context)
        await state.repository.attach(document, job_id=context.envelope.id)
        await context.bus.publish(DocumentGenerated(document=document))
        documents.append(document)
        await context.progress(done / len(formats), f"{format_} is written")
    return GeneratedDocuments(documents=tuple(documents))


async def _note(request: CreateNote, note_id: UUID, context: Context) -> Note:
    state: Documentation = context.state
    content = request.content
    transcribed = request.transcription_id is not None and not content.subjective.strip()
    if request.transcription_id is not None and transcribed:
        text = await transcript_text(context.bus, request.transcription_id)
        content = content.model_copy(update={"subjective": text})
    if not any(text.strip() for _, text in content):
        problem = "the note has no text"
        raise InvalidArgument(f"{problem}. Send a section, or a transcription_id with text.")
    return Note(
        note_id=note_id,
        patient_id=request.patient_id,
        encounter_id=request.encounter_id,
        provider_id=request.provider_id,
        note_type=request.note_type,
        created_at=state.now(),
        content=content,
        transcription_id=request.transcription_id,
        transcribed=transcribed,
    )


async def _found(state: Documentation, note_id: UUID) -> Note:
    note = await state.repository.find(note_id)
    if note is None:
        problem = "the note_id is unknown, or its note was removed"
        raise NotFound(f"{problem}. Check the id, or create the note again.")
    return note


async def _status(state: Documentation, note: Note) -> NoteStatus:
    return NoteStatus(
        note_id=note.note_id,
        status="signed" if note.signature else "draft",
        created_at=note.created_at,
        documents=await state.repository.documents(note.note_id),
    )


async def _document(note: Note, format_: DocumentFormat, context: Context) -> Document:
    state: Documentation = context.state
    document_id = uuid5(DOCUMENTS, f"{context.idempotency_key}/{format_}")
    # Check the owner before the file is written, because the file replaces one of the same name.
    await state.repository.claim(note.note_id, document_id, owner=context.envelope.source)
    rendered = await state.renderer.render(note, format_)
    path = await asyncio.to_thread(state.folder.write, f"{document_id}.{format_}", rendered.data)
    digest = await asyncio.to_thread(hashlib.sha256, rendered.data)
    return Document(
        document_id=document_id,
        note_id=note.note_id,
        format=format_,
        uri=path.as_uri(),
        size=len(rendered.data),
        sha256=digest.hexdigest(),
        pages=rendered.pages,
    )
