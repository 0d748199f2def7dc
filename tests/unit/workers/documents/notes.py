"""Notes for the tests."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from contracts.documentation.v1 import Note, NoteContent, Signature

NOTE_ID = UUID("0d9ce1a5-2b0f-4c35-9f0c-3f6f0b9a1c01")
WRITTEN = datetime(2026, 3, 4, 22, 30, tzinfo=UTC)
SIGNED = Signature(provider_id="DR-7", signed_at=datetime(2026, 3, 5, 8, 0, tzinfo=UTC))


def note(subjective: str = "Chest pain for two days.", **changes: Any) -> Note:
    """Return a complete note, with these fields changed."""
    content = NoteContent(
        subjective=subjective, objective="BP 124/78.", assessment="Muscle strain.", plan="Rest."
    )
    usual: dict[str, Any] = {
        "note_id": NOTE_ID,
        "patient_id": "MRN-0048213",
        "encounter_id": "ENC-11",
        "provider_id": "DR-7",
        "note_type": "SOAP",
        "created_at": WRITTEN,
        "content": content,
    }
    return Note(**(usual | changes))
