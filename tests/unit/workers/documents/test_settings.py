"""The settings of the documentation worker."""

import re
from pathlib import Path

import pytest

from bus.errors import ConfigurationError
from workers.documents.settings import DocumentsSettings, load_settings

HOW_TO = Path(__file__).parents[4] / "docs/how-to/generate-documents.md"


def test_defaults_need_no_environment() -> None:
    assert load_settings().zone.key == "UTC"


WRONG = [
    ("TIMEZONE", "Mars/Olympus"),
    ("PAGE_SIZE", "a3"),
    ("CLINIC_NAME", "x" * 81),
    ("KEPT_NOTES", "0"),
    ("PROCESSES", "0"),
    ("PROCESSES", "9"),
    ("MAX_SECONDS", "0"),
    ("MAX_SECONDS", "121"),
    ("MAX_SECONDS", "nan"),
    ("MAX_MEMORY", "1000"),
    ("MAX_BYTES", "0"),
    ("KEPT_NOTES", "10000001"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_bad_variable_is_named_and_its_value_is_not(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"DOCUMENTS_{name}", value)
    with pytest.raises(ConfigurationError, match=f"DOCUMENTS_{name}") as raised:
        load_settings()
    assert len(value) < 2 or value not in str(raised.value)


@pytest.mark.parametrize(("cpus", "processes"), [(None, 2), (1, 2), (4, 4), (64, 8)])
def test_by_default_there_is_a_process_for_each_cpu_and_at_least_two(
    monkeypatch: pytest.MonkeyPatch, cpus: int | None, processes: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cpus)
    assert load_settings().process_count == processes
    assert load_settings(processes=1).process_count == 1


def test_every_setting_is_in_the_how_to_with_its_default() -> None:
    rows = dict(
        re.findall(
            r"^\| `DOCUMENTS_(\w+)` \| ([^|]*) \|", HOW_TO.read_text(encoding="utf-8"), re.MULTILINE
        )
    )
    assert rows == {
        name.upper(): f"`{field.default}`" if field.default else ""
        for name, field in DocumentsSettings.model_fields.items()
    }


def test_a_variable_in_other_letters_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("documents_folder", "elsewhere")
    with pytest.raises(ConfigurationError, match=r"^settings: documents_folder: .*_FOLDER, and"):
        load_settings()
