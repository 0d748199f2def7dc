"""Conversation of a clinic with the documentation service, on any transport."""

import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import UUID, uuid4

from bus import Context, NotFound, Router
from bus.messaging.context import Sender
from contracts.documentation.client import DocumentationClient
from contracts.documentation.v1 import (
    CreateNote,
    Document,
    DocumentGenerated,
    NoteContent,
    NoteStatus,
)
from contracts.transcription.v1 import GetTranscript, Transcript

SILENT, SPOKEN, ENDLESS = uuid4(), uuid4(), uuid4()
DICTATED = "chest pain for two days\nworse at night"


def transcription() -> Router:
    """Return a transcription service that has three transcripts."""
    router = Router("transcription")
    texts = {SILENT: "", SPOKEN: DICTATED, ENDLESS: "word " * 20_000}

    @router.request(GetTranscript)
    async def get(request: GetTranscript) -> Transcript:
        if request.transcript_id not in texts:
            raise NotFound("no such transcript")
        said: dict[str, Any] = {
            "transcript_id": request.transcript_id,
            "text": texts[request.transcript_id],
        }
        return Transcript(
            **said, confidence=1, duration=1, language="en", engine="none", segments=()
        )

    return router


def archive() -> tuple[Router, list[tuple[str, Document]]]:
    """Return a service that subscribes to documents, and the list of its events.

    The list contains correlation ids and documents.
    """
    router = Router("archive")
    heard: list[tuple[str, Document]] = []

    @router.event(DocumentGenerated)
    async def on_generated(event: DocumentGenerated, context: Context) -> None:
        heard.append((context.envelope.correlation_id, event.document))

    return router, heard


def a_note(**changes: Any) -> CreateNote:
    usual: dict[str, Any] = {
        "patient_id": "MRN-1",
        "encounter_id": "ENC-1",
        "provider_id": "DR-7",
        "note_type": "Progress",
    }
    return CreateNote(**(usual | {"content": NoteContent(plan="Rest.")} | changes))


def file_of(document: Document) -> Path:
    return Path(unquote(urlsplit(document.uri).path))


def check(document: Document, note_id: UUID) -> None:
    """Assert that the values of a document match its file."""
    data = file_of(document).read_bytes()
    assert (document.note_id, document.size, document.sha256) == (
        note_id,
        len(data),
        hashlib.sha256(data).hexdigest(),
    )
    assert data.startswith({"pdf": b"%PDF-", "docx": b"PK"}[document.format])
    assert document.pages == (1 if document.format == "pdf" else None)
    assert file_of(document).stat().st_mode & 0o777 == 0o600
    assert "MRN" not in document.uri


async def from_note_to_documents(bus: Sender) -> tuple[NoteStatus, tuple[Document, ...]]:
    """Run all steps, and return the note's status at the end and the documents of the job."""
    client = DocumentationClient(bus)
    created = await client.create(a_note(transcription_id=SPOKEN), timeout=20)
    assert (created.status, created.documents) == ("draft", ())
    note = await client.get(created.note_id, timeout=20)
    assert (note.content.subjective, note.transcribed) == (DICTATED, True)
    job = await client.generate(created.note_id, "pdf", "docx", "pdf")
    made = (await job.result(timeout=40)).documents
    assert [document.format for document in made] == ["pdf", "docx"]
    for document in made:
        check(document, created.note_id)
    return await client.status(created.note_id, timeout=20), made
