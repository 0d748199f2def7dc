"""Attacks on stored objects: a message with the id of another caller's message.

The attacker has keys, grants and its own signed messages. It reads the id of the other caller's
message in the `causation_id` of an event.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from typing_extensions import override

from bus import AlreadyExists, Bus, Context, Envelope, Router
from bus.security.key_directory import KeyDirectory
from bus.testing import MemoryBuses, wall_clock
from contracts.documentation.client import DocumentationClient
from contracts.documentation.v1 import Document, DocumentGenerated, NoteContent, NoteStatus
from contracts.transcription.client import TranscriptionClient
from contracts.transcription.v1 import TranscribeAudio, TranscriptCompleted
from tests.polling import until
from tests.workers.documents.conversation import a_note, file_of
from workers.documents import router as documents
from workers.transcription.engine import Words
from workers.transcription.recogniser import Begun, Heard
from workers.transcription.repository import MemoryRepository
from workers.transcription.service import Transcription, transcribe

GRANTS = """
clients = ["reception", "thief", "registry"]

[services.reception]
call = ["write:transcriptions", "write:notes", "read:notes", "write:documents"]

[services.thief]
call = ["write:transcriptions", "write:notes", "read:notes", "write:documents"]

[services.registry]
consume = ["transcription.completed", "documentation.document-generated"]

[services.transcription]
publish = ["transcription.completed"]

[services.documentation]
publish = ["documentation.document-generated"]
"""
OURS, THEIRS = "Our own words.", "Words of the thief."


class Recordings:
    """Recordings whose text is their URL."""

    @asynccontextmanager
    async def open(self, audio_url: str) -> AsyncIterator["Recording"]:
        yield Recording(audio_url)


class Recording(BytesIO):
    def __init__(self, text: str) -> None:
        super().__init__(text.encode())
        self.text = text

    @override
    def fileno(self) -> Any:
        return self.text


class Recognisers:
    """Recognisers that hear the text of a recording."""

    @asynccontextmanager
    async def lease(self) -> AsyncIterator["Recognisers"]:
        yield self

    async def recognise(self, text: str) -> AsyncIterator[Begun | Heard]:
        yield Begun(duration=1, engine="none")
        yield Heard(words=Words(text=text, confidence=1, start=0, end=1), position=1)


@dataclass
class Clinic:
    """Two workers, two clients with the same rights, and the events that a third service hears."""

    reception: Bus
    thief: Bus
    transcripts: MemoryRepository
    heard: list[Envelope] = field(default_factory=list)

    async def cause(self, type_: str) -> str:
        """Return the id of the job that caused the first event of this type."""
        await until(lambda: any(each.type == type_ for each in self.heard), f"the event {type_}")
        cause = next(each.causation_id for each in self.heard if each.type == type_)
        assert cause is not None
        return cause


@contextmanager
def next_id(monkeypatch: pytest.MonkeyPatch, message_id: str) -> Iterator[None]:
    """Let the next client send its message with this id."""
    with monkeypatch.context() as patched:
        patched.setattr("bus.runtime.client.new_id", lambda: message_id)
        yield


@pytest.fixture
async def clinic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clinic]:
    monkeypatch.setenv("DOCUMENTS_FOLDER", str(tmp_path / "documents"))
    keys, grants = KeyDirectory(tmp_path / "keys"), tmp_path / "grants.toml"
    grants.write_text(GRANTS)
    names = ("reception", "thief", "registry", "transcription", "documentation")
    for name in names:
        keys.new(name, f"{name}-1")
    async with MemoryBuses(clock=wall_clock) as buses:
        bus = {
            name: await buses.bus(
                name,
                auth="on",
                key=str(keys.key_file(name)),
                jwks=str(keys.set_file),
                grants=grants,
            )
            for name in names
        }
        clinic = Clinic(bus["reception"], bus["thief"], MemoryRepository(10))
        await buses.serve(bus["documentation"], documents)
        await buses.serve(bus["transcription"], transcription(clinic.transcripts))
        await buses.serve(bus["registry"], archive(clinic.heard))
        yield clinic


def transcription(repository: MemoryRepository) -> Router:
    @asynccontextmanager
    async def lifespan() -> AsyncIterator[Transcription]:
        yield Transcription(
            sources=Recordings(),  # type: ignore[arg-type]  # only `open` is used
            recognisers=Recognisers(),  # type: ignore[arg-type]  # only `lease` is used
            repository=repository,
        )

    router = Router("transcription", lifespan=lifespan)
    router.job(TranscribeAudio)(transcribe)
    return router


def archive(heard: list[Envelope]) -> Router:
    router = Router("registry")

    @router.event(TranscriptCompleted)
    async def on_transcript(event: TranscriptCompleted, context: Context) -> None:
        heard.append(context.envelope)

    @router.event(DocumentGenerated)
    async def on_document(event: DocumentGenerated, context: Context) -> None:
        heard.append(context.envelope)

    return router


async def created(bus: Bus, text: str) -> NoteStatus:
    note = a_note(content=NoteContent(plan=text))
    return await DocumentationClient(bus).create(note, timeout=20)


async def documented(clinic: Clinic) -> tuple[UUID, Document]:
    """Return the id of a note of the reception, and its document."""
    note_id = (await created(clinic.reception, OURS)).note_id
    job = await DocumentationClient(clinic.reception).generate(note_id, "docx")
    (document,) = (await job.result(timeout=20)).documents
    return note_id, document


async def test_a_job_with_anothers_message_id_does_not_replace_the_others_transcript(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = await (await TranscriptionClient(clinic.reception).create(OURS)).result(timeout=20)
    stolen = await clinic.cause("transcription.completed.v1")
    with next_id(monkeypatch, stolen):
        job = await TranscriptionClient(clinic.thief).create(THEIRS)
    assert job.id == stolen
    theirs = await job.result(timeout=20)
    assert (ours.text, theirs.text) == (OURS, THEIRS)
    assert await clinic.transcripts.find(ours.transcript_id) == ours
    assert await clinic.transcripts.find(theirs.transcript_id) == theirs


@pytest.mark.parametrize("of_the_other", [False, True], ids=["own note", "the other's note"])
async def test_a_job_with_anothers_message_id_does_not_replace_the_others_document(
    of_the_other: bool, clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    our_note, ours = await documented(clinic)
    before = file_of(ours).read_bytes()
    their_note = our_note if of_the_other else (await created(clinic.thief, THEIRS)).note_id
    with next_id(monkeypatch, await clinic.cause("documentation.document-generated.v1")):
        job = await DocumentationClient(clinic.thief).generate(their_note, "docx")
    (theirs,) = (await job.result(timeout=20)).documents
    assert theirs.document_id != ours.document_id
    assert theirs.uri != ours.uri
    assert file_of(theirs).is_file()
    assert file_of(ours).read_bytes() == before
    status = await DocumentationClient(clinic.reception).status(our_note)
    assert status.documents == ((ours, theirs) if of_the_other else (ours,))


async def test_a_request_with_anothers_message_id_creates_its_own_note(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    with next_id(monkeypatch, "an id that both use"):
        ours = await created(clinic.reception, OURS)
    with next_id(monkeypatch, "an id that both use"):
        theirs = await created(clinic.thief, THEIRS)
    assert ours.note_id != theirs.note_id
    for bus, note_id, text in (
        (clinic.reception, ours.note_id, OURS),
        (clinic.thief, theirs.note_id, THEIRS),
    ):
        assert (await DocumentationClient(bus).get(note_id)).content.plan == text


@pytest.fixture
def equal_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Derive the ids of all stored objects from the message id alone, as a faulty worker would."""
    monkeypatch.setattr("bus.messaging.context.idempotency_key", lambda envelope: envelope.id)


@pytest.mark.usefixtures("equal_keys")
async def test_a_transcript_of_another_owner_is_refused_even_if_the_ids_are_equal(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = await (await TranscriptionClient(clinic.reception).create(OURS)).result(timeout=20)
    with next_id(monkeypatch, await clinic.cause("transcription.completed.v1")):
        job = await TranscriptionClient(clinic.thief).create(THEIRS)
    with pytest.raises(AlreadyExists, match="another service owns the transcript"):
        await job.result(timeout=20)
    assert await clinic.transcripts.find(ours.transcript_id) == ours


@pytest.mark.usefixtures("equal_keys")
async def test_a_file_of_another_owner_is_not_written_even_if_the_ids_are_equal(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ours = await documented(clinic)
    before = file_of(ours).stat()
    their_note = (await created(clinic.thief, THEIRS)).note_id
    with next_id(monkeypatch, await clinic.cause("documentation.document-generated.v1")):
        job = await DocumentationClient(clinic.thief).generate(their_note, "docx")
    with pytest.raises(AlreadyExists, match="another service owns the document"):
        await job.result(timeout=20)
    after = file_of(ours).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.usefixtures("equal_keys")
async def test_a_note_of_another_owner_is_refused_even_if_the_ids_are_equal(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    with next_id(monkeypatch, "an id that both use"):
        ours = await created(clinic.reception, OURS)
    with (
        next_id(monkeypatch, "an id that both use"),
        pytest.raises(AlreadyExists, match="another service owns the note"),
    ):
        await created(clinic.thief, THEIRS)
    assert (await DocumentationClient(clinic.reception).get(ours.note_id)).content.plan == OURS
