"""Steps of the demonstration. Each step is timed, and all messages have one correlation id."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from bus import (
    Bus,
    BusError,
    Catalog,
    Envelope,
    InvalidArgument,
    Job,
    JobHandle,
    JobStatus,
    Message,
    Progress,
    contract,
    correlated,
)
from bus.errors import error_for
from contracts.documentation.client import DocumentationClient
from contracts.documentation.v1 import (
    CreateNote,
    GeneratedDocuments,
    NoteContent,
    NoteStatus,
)
from contracts.transcription.client import TranscriptionClient
from contracts.transcription.v1 import Transcript
from workers.demo.durable import begun, cancelled
from workers.demo.stage import Stage, served
from workers.demo.subscribers import subscribers
from workers.demo.watch import WORK_QUEUES, watched

__all__ = ["Ending", "RefusedJob", "Step", "Story"]

JOB_TIMEOUT = 300.0
"""Seconds to wait for a job's result, several times a job's duration on a slow machine."""
EVENT_TIMEOUT = 10.0
"""Seconds to wait for an event at a subscriber, or for the error of the invalid job."""
MOST_LETTERS = 10_000
"""Maximum number of dead letters to browse.

A broker keeps the dead letters of earlier demonstrations. The dead letter of this run comes last.
"""
R = TypeVar("R", bound=Message)
DEMO_IDS = {
    "patient_id": "DEMO-PATIENT-1",
    "encounter_id": "DEMO-ENCOUNTER-1",
    "provider_id": "DEMO-PROVIDER-1",
}
WORK_QUEUE, DOCUMENTS_QUEUE = WORK_QUEUES["transcription"], WORK_QUEUES["documentation"]
SAMPLE_TEXT = Path("examples/data/dictation.txt")
"""The words of the sample recording, with one line for each section of a note."""


# The demonstration sends an invalid job with this incorrect copy of the contract. In practice, a
# sender in another language can have such a copy, or a sender with a version that never existed.
@contract("transcription.transcribe", version=1, catalog=Catalog())
class MisreadTranscribeAudio(Job[Transcript]):
    """Incorrect copy of `TranscribeAudio`: the URL is a number instead of text."""

    audio_url: int


@contract("documentation.generate-documents", version=1, catalog=Catalog())
class MisreadGenerateDocuments(Job[GeneratedDocuments]):
    """Incorrect copy of `GenerateDocuments`, for a stage without the transcription worker."""

    note_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedJob:
    """The invalid job: a dead letter, or a failed job in the store of its worker."""

    dead_letter: Envelope | None
    """None if the worker has a store."""
    status: JobStatus | None
    """State of the row in the store. None without a store."""
    reason: str
    """Text of the error that the submitter received."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Finished step of the demonstration, which is a row of the table at the end."""

    name: str
    outcome: str
    at: float
    """Seconds since the start of the demonstration."""
    took: float
    """Duration in seconds."""
    correlation_id: str | None = None


@dataclass(slots=True, kw_only=True)
class Ending:
    """Results of the demonstration."""

    transcript: Transcript | None
    """Transcript of the recording. None if the stage has no transcription worker."""
    note: NoteStatus
    """Status of the note at the end, with its documents."""
    refused: "RefusedJob"
    correlation_id: str


@dataclass(slots=True)
class Story:
    """Demonstration on a stage.

    `on_step` is called with each finished step, and `on_progress` with each progress update.
    """

    stage: Stage
    on_step: Callable[[Step], None]
    on_progress: Callable[[str, Progress], None]
    by_section: bool = False
    """True if the recording has exactly one utterance for each section of a note.

    The sample recording in the repository has this form.
    """
    correlation_id: str = field(default_factory=lambda: str(uuid4()))
    _began: float = field(default_factory=time.perf_counter)

    async def play(self, recording: str) -> Ending:
        """Run all steps, from the recording to documents and a dead letter.

        `recording` is a path or URL that the worker can read. If the stage has no transcription
        worker, the steps begin with a note whose text is the sample's.
        """
        router, seen = subscribers(self.correlation_id)
        async with (
            self.stage.bus("demo") as bus,
            self.stage.workers() as workers,
            bus.serving(router),
        ):
            with self._step("start the workers", workers):
                limit = self.stage.start_timeout
                await served(bus, self.stage.services, self.stage.check, limit)
            return await watched(self._tell(bus, seen, recording), self.stage.watch(bus))

    async def _tell(
        self, bus: Bus, seen: "dict[str, asyncio.Future[Envelope]]", recording: str
    ) -> Ending:
        """Run all steps after the start of the workers."""
        with correlated(self.correlation_id):
            transcript = None
            if "transcription" in self.stage.services:
                transcript = await self._transcribe(TranscriptionClient(bus), recording)
                await self._hear(seen, "index", "notify")
            if transcript is not None:
                await self._interrupt(bus, recording, transcript)
            note = await self._document(DocumentationClient(bus), self._note(transcript))
            await self._hear(seen, "archive")
            refused = await self._poison(bus)
        return Ending(
            transcript=transcript, note=note, refused=refused, correlation_id=self.correlation_id
        )

    async def _transcribe(self, client: TranscriptionClient, recording: str) -> Transcript:
        with self._step("submit the recording", "confirmed by the broker", self.correlation_id):
            job = await client.create(recording)
        with self._step("transcribe the recording", "progress and result", self.correlation_id):
            transcript = await self._followed("transcribing", job)
        with self._step("request the transcript by RPC", "same transcript", self.correlation_id):
            return await client.get(transcript.transcript_id, timeout=5)

    async def _interrupt(self, bus: Bus, recording: str, transcript: Transcript) -> None:
        """Cancel a job, and kill the worker of another job, if the workers have a store."""
        client, correlation_id = TranscriptionClient(bus), self.correlation_id
        if self.stage.can_cancel:
            began = time.perf_counter()
            outcome = await cancelled(client, recording)
            self._done("cancel a running job", outcome, began, correlation_id)
        if not self.stage.can_restart:
            return
        with self._step("kill the worker (SIGKILL)", "in the middle of a job", correlation_id):
            job = await begun(client, recording, partial(self.on_progress, "transcribing"))
            await self.stage.restart("transcription")
        with self._step("start the worker again", "it takes over the job", correlation_id):
            limit = self.stage.start_timeout
            await served(bus, ("transcription",), self.stage.check, limit)
        with self._step("ask in another process", "same transcript", correlation_id):
            text = await self.stage.ask(job.id)
            if text.strip() != transcript.text.strip():
                raise BusError("the job that was taken over has another transcript.")

    async def _document(self, client: DocumentationClient, note: CreateNote) -> NoteStatus:
        with self._step("create a note by RPC", "a draft is stored", self.correlation_id):
            created = await client.create(note, timeout=10)
        with self._step("generate the documents", "PDF and DOCX are written", self.correlation_id):
            await self._followed("writing", await client.generate(created.note_id, "pdf", "docx"))
        with self._step("request the status by RPC", "draft, two documents", self.correlation_id):
            return await client.status(created.note_id, timeout=5)

    def _note(self, transcript: Transcript | None) -> CreateNote:
        """Return the request to create a note.

        The sample is filed section by section. For any other recording, the service uses the
        whole transcript as the subjective section. Without a transcript, the note has the text of
        the sample.
        """
        said = (
            SAMPLE_TEXT.read_text(encoding="utf-8").splitlines()
            if transcript is None
            else [segment.text for segment in transcript.segments]
        )
        content = NoteContent()
        if self.by_section and len(said) == len(NoteContent.model_fields):
            content = NoteContent(**dict(zip(NoteContent.model_fields, said, strict=True)))
        transcript_id = None if transcript is None else transcript.transcript_id
        return CreateNote(
            **DEMO_IDS, note_type="SOAP", transcription_id=transcript_id, content=content
        )

    async def _followed(self, what: str, job: JobHandle[R]) -> R:
        async for update in job.updates():
            if update.error is not None:
                # Do not wait for the retries, because they take minutes. Show the error now.
                raise error_for(update.error, update.note)
            self.on_progress(what, update)
        return await job.result(timeout=JOB_TIMEOUT)

    async def _hear(self, seen: "dict[str, asyncio.Future[Envelope]]", *names: str) -> None:
        for name in names:
            began = time.perf_counter()
            async with asyncio.timeout(EVENT_TIMEOUT):
                event = await seen[name]
            self._done(f"event for {name}", f"{event.type} received", began, event.correlation_id)

    async def _poison(self, bus: Bus) -> RefusedJob:
        began = time.perf_counter()
        queue, job = await self._submit_invalid(bus)
        try:
            await job.result(timeout=EVENT_TIMEOUT)
        except InvalidArgument as error:
            refused = await _find_refused(bus, queue, job, str(error))
        else:
            raise BusError("the worker accepted an invalid message. Check its version.")
        if refused.dead_letter is not None:
            outcome = f"dead-lettered: {refused.dead_letter.headers['dead-code']}"
        else:
            outcome = f"failed job in the store: {refused.status and refused.status.code}"
        self._done("submit an invalid job", outcome, began, self.correlation_id)
        return refused

    async def _submit_invalid(
        self, bus: Bus
    ) -> tuple[str, JobHandle[Transcript] | JobHandle[GeneratedDocuments]]:
        """Submit a job that its worker refuses. Return its work queue and the job."""
        if "transcription" in self.stage.services:
            return WORK_QUEUE, await bus.submit(MisreadTranscribeAudio(audio_url=42))
        return DOCUMENTS_QUEUE, await bus.submit(MisreadGenerateDocuments(note_id=42))

    @contextmanager
    def _step(self, name: str, outcome: str, correlation_id: str | None = None) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self._done(name, outcome, began, correlation_id)

    def _done(self, name: str, outcome: str, began: float, correlation_id: str | None) -> None:
        now = time.perf_counter()
        self.on_step(
            Step(
                name=name,
                outcome=outcome,
                at=now - self._began,
                took=now - began,
                correlation_id=correlation_id,
            )
        )


async def _find_refused(bus: Bus, queue: str, job: JobHandle[Any], reason: str) -> RefusedJob:
    """Return the dead letter of a job, or its state in the store of its worker."""
    letters = await bus.dead_letters(queue, limit=MOST_LETTERS)
    dead = next((letter.envelope for letter in letters if letter.id == job.id), None)
    status = await job.status() if dead is None else None
    return RefusedJob(dead_letter=dead, status=status, reason=reason)
