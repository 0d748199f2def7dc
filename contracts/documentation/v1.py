"""Contracts of the documentation service, version 1: clinical notes become documents."""

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
"""Characters; an hour of dictation. It bounds a document: to 2,042 pages where each line has one letter."""

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,64}$")]
"""Another system's id, by the rule of FHIR's `id` type (https://hl7.org/fhir/R4/datatypes.html#id)."""
NoteType = Literal["SOAP", "Progress", "Discharge"]
DocumentFormat = Literal["docx", "pdf"]
Section = Sensitive[Annotated[str, Field(max_length=LONGEST_SECTION)]]


class NoteContent(Message):
    """What a clinician says of an encounter: any Unicode text; a line break stays one, an empty line begins a paragraph."""

    subjective: Section = ""
    """What the patient reports."""
    objective: Section = ""
    """What was found and measured."""
    assessment: Section = ""
    """What the clinician makes of it."""
    plan: Section = ""
    """What is to be done."""


class Signature(Message):
    """Who took responsibility for a note, and when. No request of version 1 signs: that wants proof of who asks."""

    provider_id: Identifier
    signed_at: AwareDatetime


class Note(Message):
    """A clinical note as it is kept. It does not change once it is created."""

    note_id: UUID
    patient_id: Sensitive[Identifier]
    encounter_id: Sensitive[Identifier]
    provider_id: Identifier
    note_type: NoteType
    created_at: AwareDatetime
    content: NoteContent
    transcription_id: UUID | None = None
    transcribed: bool = False
    """Whether the subjective section is the transcript, word for word, which nobody has read yet."""
    signature: Signature | None = None


class Document(Message):
    """A file that was made of a note."""

    document_id: UUID
    note_id: UUID
    format: DocumentFormat
    uri: str
    """A `file:` URI on the worker's machine; its name says nothing of the patient."""
    size: int = Field(gt=0)
    """Bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """Of the file's bytes, in hexadecimal."""
    pages: int | None = Field(default=None, ge=1)
    """None for DOCX: the program that opens it breaks the pages."""


class NoteStatus(Message):
    """What became of a note, without what it says."""

    note_id: UUID
    status: Literal["draft", "signed"]
    created_at: AwareDatetime
    documents: tuple[Document, ...] = ()
    """Those that were generated of it, oldest first."""


@contract("documentation.create-note", version=1, permission="write:notes", idempotent=True)
class CreateNote(Request[NoteStatus]):
    """Keep a note.

    With a `transcription_id` and no subjective section, the transcript becomes that section. `invalid_argument` for a note
    that says nothing, `not_found` where there is no such transcript, `unavailable` where it cannot be asked for now.
    """

    patient_id: Sensitive[Identifier]
    encounter_id: Sensitive[Identifier]
    provider_id: Identifier
    note_type: NoteType
    transcription_id: UUID | None = None
    content: NoteContent = NoteContent()


@contract("documentation.get-note", version=1, permission="read:notes", idempotent=True)
class GetNote(Request[Note]):
    """Ask for a note with its content; `not_found` where there is none."""

    note_id: UUID


@contract("documentation.get-note-status", version=1, permission="read:notes", idempotent=True)
class GetNoteStatus(Request[NoteStatus]):
    """Ask whether a note is signed and which documents were made of it; `not_found` where there is none."""

    note_id: UUID


class GeneratedDocuments(Message):
    """What a job made, in the order in which it was asked for."""

    documents: tuple[Document, ...]


@contract("documentation.generate-documents", version=1, permission="write:documents")
class GenerateDocuments(Job[GeneratedDocuments]):
    """Make files of a note; a format that is named twice is made once."""

    note_id: UUID
    formats: tuple[DocumentFormat, ...] = Field(min_length=1, max_length=8)


@contract("documentation.document-generated", version=1)
class DocumentGenerated(Event):
    """A document lies where it says. It names no patient: who may know asks for the note."""

    document: Document
