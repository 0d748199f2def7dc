"""Contracts of the documentation service, version 1, which turns clinical notes into documents."""

from typing import Annotated, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field

from bus import Event, Job, Message, Request, Sensitive, contract

__all__ = [
    "LONGEST_SECTION",
    "CreateNote",
    "Document",
    "DocumentFormat",
    "DocumentGenerated",
    "GenerateDocuments",
    "GeneratedDocuments",
    "GetNote",
    "GetNoteStatus",
    "Identifier",
    "Note",
    "NoteContent",
    "NoteStatus",
    "NoteType",
    "Signature",
]

LONGEST_SECTION = 50_000
"""Maximum characters of a section: an hour of dictation.

It limits a document to 2,042 pages if each line has one letter.
"""

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,64}$")]
"""Id of another system, by the rule of FHIR's `id` type.

See https://hl7.org/fhir/R4/datatypes.html#id.
"""
NoteType = Literal["SOAP", "Progress", "Discharge"]
DocumentFormat = Literal["docx", "pdf"]
Section = Sensitive[Annotated[str, Field(max_length=LONGEST_SECTION)]]


class NoteContent(Message):
    """Text of a clinician about an encounter: any Unicode text.

    A line break is kept, and an empty line begins a paragraph.
    """

    subjective: Section = ""
    """Report of the patient."""
    objective: Section = ""
    """Findings and measurements."""
    assessment: Section = ""
    """Conclusions of the clinician."""
    plan: Section = ""
    """Planned actions."""


class Signature(Message):
    """Provider that took responsibility for a note, and the time.

    Version 1 has no request to sign a note: signing requires proof of the caller's identity.
    """

    provider_id: Identifier
    signed_at: AwareDatetime


class Note(Message):
    """Clinical note as it is stored; it does not change after it is created."""

    note_id: UUID
    patient_id: Sensitive[Identifier]
    encounter_id: Sensitive[Identifier]
    provider_id: Identifier
    note_type: NoteType
    created_at: AwareDatetime
    content: NoteContent
    transcription_id: UUID | None = None
    transcribed: bool = False
    """True if the subjective section is the transcript, word for word and not yet reviewed."""
    signature: Signature | None = None


class Document(Message):
    """File that was generated from a note."""

    document_id: UUID
    note_id: UUID
    format: DocumentFormat
    uri: str
    """`file:` URI on the worker's machine; its name reveals nothing about the patient."""
    size: int = Field(gt=0)
    """Size of the file in bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file's bytes, in hexadecimal."""
    pages: int | None = Field(default=None, ge=1)
    """Number of pages, or None for DOCX, because the program that opens it breaks the pages."""


class NoteStatus(Message):
    """Status of a note, without its content."""

    note_id: UUID
    status: Literal["draft", "signed"]
    created_at: AwareDatetime
    documents: tuple[Document, ...] = ()
    """Documents that were generated from it, oldest first."""


@contract("documentation.create-note", version=1, permission="write:notes", idempotent=True)
class CreateNote(Request[NoteStatus]):
    """Request to create a note.

    With a `transcription_id` and no subjective section, the transcript becomes that section.
    The error is `invalid_argument` for a note without text, and `not_found` for an unknown
    transcript. It is `unavailable` if the transcription service does not answer now.
    """

    patient_id: Sensitive[Identifier]
    encounter_id: Sensitive[Identifier]
    provider_id: Identifier
    note_type: NoteType
    transcription_id: UUID | None = None
    content: NoteContent = NoteContent()


@contract("documentation.get-note", version=1, permission="read:notes", idempotent=True)
class GetNote(Request[Note]):
    """Request for a note with its content; the error is `not_found` if it does not exist."""

    note_id: UUID


@contract("documentation.get-note-status", version=1, permission="read:notes", idempotent=True)
class GetNoteStatus(Request[NoteStatus]):
    """Request for a note's status: whether it is signed, and its documents.

    The error is `not_found` if the note does not exist.
    """

    note_id: UUID


class GeneratedDocuments(Message):
    """Documents of a job, in the order of the requested formats."""

    documents: tuple[Document, ...]


@contract("documentation.generate-documents", version=1, permission="write:documents")
class GenerateDocuments(Job[GeneratedDocuments]):
    """Job that generates files of a note; a format that is named twice is generated once."""

    note_id: UUID
    formats: tuple[DocumentFormat, ...] = Field(min_length=1, max_length=8)


@contract("documentation.document-generated", version=1)
class DocumentGenerated(Event):
    """Event that a document is stored at its URI.

    It does not name the patient; a service with permission can request the note.
    """

    document: Document
