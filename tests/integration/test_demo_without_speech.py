"""Tests of `bus demo` on a Python for which the package for speech recognition has no wheel."""

import re
from pathlib import Path

from tests.integration.command import ROOT, bus

WITHOUT_SPEECH = "import sys\nsys.modules['pocketsphinx'] = None\n"
"""Content of a `sitecustomize.py`, which makes each import of the package fail."""


def hide_speech(tmp_path: Path) -> dict[str, str]:
    """Return the environment of a process in which the package is not installed."""
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_SPEECH, encoding="utf-8")
    return {
        "PYTHONPATH": str(tmp_path),
        "DOCUMENTS_FOLDER": str(tmp_path / "documents"),
        "BUS_URL": "memory:",
    }


async def test_the_demo_goes_on_without_the_transcription_worker_and_says_so(
    tmp_path: Path,
) -> None:
    shown = await bus("demo", **hide_speech(tmp_path))

    assert shown.code == 0, shown.err
    assert "left out the transcription worker requires 'pocketsphinx'" in shown.out
    assert "failed job in the store: invalid_argument" in shown.out
    assert len(re.findall(r"file://\S+\.(?:pdf|docx)$", shown.out, re.MULTILINE)) == 2


async def test_a_recording_that_no_worker_can_transcribe_is_refused(tmp_path: Path) -> None:
    sample = str(ROOT / "examples/data/dictation.wav")
    shown = await bus("demo", sample, **hide_speech(tmp_path))

    assert shown.code == 78, shown.err
    assert "Install it: pip install 'trunkline[transcription]'." in shown.err
