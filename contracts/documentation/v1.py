"""Version 1 of the contracts of the documentation service.

The service stores clinical notes and turns them into documents.
"""

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
    "GetDocuments",
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
"""Maximum number of characters in a section of a note. An hour of dictation has about this number.

With this limit, a PDF has about 3,130 pages at most. It has that many only if all four sections
consist of paragraphs of one letter.
"""

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,64}$")]
"""Id that another system assigned, in the format of FHIR's `id` type.

See https://hl7.org/fhir/R4/datatypes.html#id.
"""
NoteType = Literal["SOAP", "Progress", "Discharge"]
DocumentFormat = Literal["docx", "pdf"]
Section = Sensitive[Annotated[str, Field(max_length=LONGEST_SECTION)]]


class NoteContent(Message):
    """Text that a clinician wrote about an encounter. A section may have any Unicode text.

    Line breaks are kept. An empty line separates two paragraphs.
    """

    subjective: Section = ""
    """Report that the patient gave."""
    objective: Section = ""
    """Findings and measurements."""
    assessment: Section = ""
    """Conclusions that the clinician drew."""
    plan: Section = ""
    """Planned actions."""


class Signature(Message):
    """Signature of a note: the provider that is responsible for the note, and the time.

    Version 1 has no request to sign a note: signing requires proof of the caller's identity.
    """

    provider_id: Identifier
    signed_at: AwareDatetime


class Note(Message):
    """Clinical note in the form in which it is stored. A stored note does not change."""

    note_id: UUID
    patient_id: Sensitive[Identifier]
    encounter_id: Sensitive[Identifier]
    provider_id: Identifier
    note_type: NoteType
    created_at: AwareDatetime
    content: NoteContent
    transcription_id: UUID | None = None
    transcribed: bool = False
    """True if the subjective section is the unchanged transcript, not yet reviewed by a person."""
    signature: Signature | None = None


class Document(Message):
    """File that was generated from a note."""

    document_id: UUID
    note_id: UUID
    format: DocumentFormat
    uri: str
    """`file:` URI on the worker's machine. The file name contains no data about the patient."""
    size: int = Field(gt=0)
    """Size of the file in bytes."""
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file's bytes, in hexadecimal."""
    pages: int | None = Field(default=None, ge=1)
    """Number of pages. None for DOCX, because the program that opens the file breaks its pages."""


class NoteStatus(Message):
    """Status of a note, without its content."""

    note_id: UUID
    status: Literal["draft", "signed"]
    created_at: AwareDatetime
    documents: tuple[Document, ...] = ()
    """Documents that were generated from the note, oldest first."""


@contract("documentation.create-note", version=1, permission="write:notes", idempotent=True)
class CreateNote(Request[NoteStatus]):
    """Request to create a note.

    If a `transcription_id` but no subjective section is given, the transcript becomes that section.
    The error is `invalid_argument` for a note without text, and `not_found` for an unknown
    transcript. The error is `unavailable` if the transcription service does not answer now.
    """

    patient_id: Sensitive[Identifier]
    encounter_id: Sensitive[Identifier]
    provider_id: Identifier
    note_type: NoteType
    transcription_id: UUID | None = None
    content: NoteContent = NoteContent()


@contract("documentation.get-note", version=1, permission="read:notes", idempotent=True)
class GetNote(Request[Note]):
    """Request for a note with its content. The error is `not_found` if the note does not exist."""

    note_id: UUID


@contract("documentation.get-note-status", version=1, permission="read:notes", idempotent=True)
class GetNoteStatus(Request[NoteStatus]):
    """Request for a note's status: draft or signed, and the note's documents.

    The error is `not_found` if the note does not exist.
    """

    note_id: UUID


class GeneratedDocuments(Message):
    """Result of `GenerateDocuments`: the documents, in the order of the requested formats."""

    documents: tuple[Document, ...]


@contract("documentation.generate-documents", version=1, permission="write:documents")
class GenerateDocuments(Job[GeneratedDocuments]):
    """Job that generates a document of a note in each format.

    If a format is requested twice, its document is generated once.
    """

    note_id: UUID
    formats: tuple[DocumentFormat, ...] = Field(min_length=1, max_length=8)


@contract("documentation.get-documents", version=1, idempotent=True)
class GetDocuments(Request[GeneratedDocuments]):
    """Request for documents by the id of their job, or for one document by its own id.

    Only the service that submitted the job finds them, so no permission is needed. For every other
    service, and for an unknown id, the error is `not_found`.
    """

    job_id: str | None = Field(default=None, min_length=1, max_length=255)
    """Id of the job. It has documents as soon as the first one is written."""
    document_id: UUID | None = None
    """Id of a document. Exactly one of the two ids is given."""


@contract("documentation.document-generated", version=1)
class DocumentGenerated(Event):
    """Event that a document has been stored at its URI.

    The event does not name the patient. A service with permission can request the note.
    """

    document: Document
