"""Content of a note's pages in each format: both renderers show this and nothing else."""

from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Literal

from contracts.documentation.v1 import Note
from workers.documents.text import paragraphs, plain

__all__ = ["Layout", "Letterhead", "PageSize", "SectionText", "laid_out"]

PageSize = Literal["a4", "letter"]

HEADER_LENGTH = 90
"""Maximum characters in the header's size on either paper, with a reserve."""
UNSIGNED = "Generated document \u2014 not signed"
NOTHING = "Not documented."
UNREAD = "Machine transcript of the recording, not reviewed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterhead:
    """Letterhead of a clinic."""

    name: str
    address: str
    """Address line; empty if there is no address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionText:
    """Text of one of the four sections."""

    heading: str
    remark: str | None
    """Information for the reader before the text, or instead of it."""
    paragraphs: list[list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Content of a note's pages before rendering."""

    letterhead: Letterhead
    title: str
    date: str
    patient: str
    """Patient line of every page; a loose page must not be filed with another patient."""
    marker: str | None
    """Warning under the title and on every page of an unsigned note."""
    standing: str
    """Text in each page's footer: the marker or the signature."""
    facts: tuple[tuple[str, str], ...]
    """Names and values, two pairs to a row."""
    sections: tuple[SectionText, ...]
    signer: str
    """Provider that signed, or that has to sign."""
    created: datetime
    page_size: PageSize

    def running(self, *, first: bool) -> str:
        """Return the text of a page's header beside the patient.

        The first page needs no clinic name, because the letterhead is below its header.
        """
        about = f"{self.title}, {self.date}"
        full = about if first else f"{about} \u00b7 {self.letterhead.name}"
        return next(
            (text for text in (full, about) if len(text) + len(self.patient) <= HEADER_LENGTH),
            self.title,
        )


def laid_out(note: Note, letterhead: Letterhead, *, zone: tzinfo, page_size: PageSize) -> Layout:
    """Return the layout of the note with this letterhead and with dates of this zone."""
    signed = (
        note.signature
        and f"Signed by {note.signature.provider_id} on {_date(note.signature.signed_at, zone)}"
    )
    return Layout(
        letterhead=Letterhead(name=plain(letterhead.name), address=plain(letterhead.address)),
        title=f"{note.note_type} note",
        date=_date(note.created_at, zone),
        patient=f"Patient ID: {note.patient_id}",
        marker=None if signed else UNSIGNED,
        standing=signed or UNSIGNED,
        facts=_facts(note, zone),
        sections=tuple(_sections(note)),
        signer=note.signature.provider_id if note.signature else note.provider_id,
        created=note.created_at,
        page_size=page_size,
    )


def _facts(note: Note, zone: tzinfo) -> tuple[tuple[str, str], ...]:
    facts = [
        ("Patient ID", note.patient_id),
        ("Encounter ID", note.encounter_id),
        ("Provider ID", note.provider_id),
        ("Date", _date(note.created_at, zone)),
        ("Note ID", str(note.note_id)),
    ]
    if note.transcription_id is not None:
        facts.append(("Transcription ID", str(note.transcription_id)))
    return tuple(facts)


def _sections(note: Note) -> list[SectionText]:
    """Return all four sections in clinical order; a missing heading would look like lost text."""
    texts = {
        "Subjective": note.content.subjective,
        "Objective": note.content.objective,
        "Assessment": note.content.assessment,
        "Plan": note.content.plan,
    }
    sections = []
    for heading, text in texts.items():
        blocks = paragraphs(text)
        remark = (
            UNREAD
            if blocks and note.transcribed and heading == "Subjective"
            else None
            if blocks
            else NOTHING
        )
        sections.append(SectionText(heading=heading, remark=remark, paragraphs=blocks))
    return sections


def _date(moment: datetime, zone: tzinfo) -> str:
    """Return the date with the month as a word.

    3/4 is a day in March in some countries, and a day in April in others.
    """
    local = moment.astimezone(zone)
    return f"{local.day} {local:%B %Y, %H:%M %Z}"
