"""The messages that the documentation service accepts, and those that reach no handler."""

from typing import Any

import pytest

from bus.contracts.contract import decode, encode
from bus.errors import ContractViolation
from contracts.documentation.v1 import LONGEST_SECTION, CreateNote, GenerateDocuments
from tests.unit.workers.documents.notes import NOTE_ID

NOTE = {"patient_id": "MRN-1", "encounter_id": "E.1", "provider_id": "DR-7", "note_type": "SOAP"}


def sent(model: Any, **fields: object) -> Any:
    unchecked = model.model_construct(**fields)
    return decode(model, unchecked.__pydantic_serializer__.to_json(unchecked, warnings=False))


@pytest.mark.parametrize("name", ["patient_id", "encounter_id", "provider_id"])
@pytest.mark.parametrize("value", ["", "x" * 65, "Jane Doe", "1\n", "../x", "ä", "a/b"], ids=repr)
def test_an_id_of_another_form_is_refused_by_name_and_not_by_value(name: str, value: str) -> None:
    with pytest.raises(ContractViolation, match=f"{name}: must match the pattern") as raised:
        sent(CreateNote, **(NOTE | {name: value}))
    assert len(value) < 3 or value not in str(raised.value)


@pytest.mark.parametrize(
    "changed",
    [
        {"note_type": "Letter"},
        {"transcription_id": "1"},
        {"content": {"plan": "x" * (LONGEST_SECTION + 1)}},
    ],
)
def test_another_note_type_a_wrong_transcription_and_a_section_that_is_too_long_are_refused(
    changed: dict[str, object],
) -> None:
    with pytest.raises(ContractViolation, match=next(iter(changed))):
        sent(CreateNote, **(NOTE | changed))


@pytest.mark.parametrize(
    "formats", [(), ("odt",), ("pdf",) * 9], ids=["none", "unknown", "too many"]
)
def test_a_job_asks_for_formats_that_there_are(formats: tuple[str, ...]) -> None:
    with pytest.raises(ContractViolation, match="formats"):
        sent(GenerateDocuments, note_id=NOTE_ID, formats=formats)


def test_any_text_survives_the_wire() -> None:
    note = CreateNote.model_validate(NOTE | {"content": {"plan": "\0 Πόνος \u202e \U0001f642\r\n"}})
    assert decode(CreateNote, encode(note)) == note
