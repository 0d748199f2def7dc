"""Content of a note's pages. The renderers of both formats show exactly this content."""

from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Literal

from contracts.documentation.v1 import Note
from workers.documents.text import paragraphs, plain

__all__ = ["Layout", "Letterhead", "PageSize", "SectionText", "laid_out"]

PageSize = Literal["a4", "letter"]

HEADER_LENGTH = 90
"""Maximum number of characters in a page header. They fit on both paper sizes, with a reserve."""
UNSIGNED = "Generated document \u2014 not signed"
NOTHING = "Not documented."
UNREAD = "Machine transcript of the recording, not reviewed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Letterhead:
    """Letterhead of a clinic."""

    name: str
    address: str
    """Address line. Empty if the clinic has no address line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionText:
    """Text of one of the four sections."""

    heading: str
    remark: str | None
    """Remark for the reader, above the text or instead of the text. None if there is no remark."""
    paragraphs: list[list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Content of a note's pages before rendering."""

    letterhead: Letterhead
    title: str
    date: str
    patient: str
    """Line that names the patient on every page.

    It prevents a loose page from being filed with another patient.
    """
    marker: str | None
    """Warning of an unsigned note, below the title and on every page. None for a signed note."""
    standing: str
    """Text in the footer of each page: the warning of an unsigned note, or the signature."""
    facts: tuple[tuple[str, str], ...]
    """Names and values of the table above the sections."""
    sections: tuple[SectionText, ...]
    signer: str
    """Id of the provider that signed the note or must sign it."""
    created: datetime
    page_size: PageSize

    def running(self, *, first: bool) -> str:
        """Return the text of a page's header, without the patient line.

        The header of the first page has no clinic name, because the letterhead is below it. If the
        text is too long for the header, it is shortened.
        """
        about = f"{self.title}, {self.date}"
        full = about if first else f"{about} \u00b7 {self.letterhead.name}"
        return next(
            (text for text in (full, about) if len(text) + len(self.patient) <= HEADER_LENGTH),
            self.title,
        )


def laid_out(note: Note, letterhead: Letterhead, *, zone: tzinfo, page_size: PageSize) -> Layout:
    """Return the layout of the note with this letterhead, and with dates in this time zone."""
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
    """Return all four sections in clinical order.

    Empty sections are included, because a reader could take a missing heading for lost text.
    """
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

    A date in digits is ambiguous: 3/4 is a day in March or in April, depending on the country.
    """
    local = moment.astimezone(zone)
    return f"{local.day} {local:%B %Y, %H:%M %Z}"
