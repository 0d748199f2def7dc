"""The engines, which are loaded by name. The error of an engine that cannot load has a remedy."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bus.errors import ConfigurationError
from tests.speech import needs_speech
from workers.transcription.engine import EngineSpec, Words, load_engine

WHISPER = "workers.transcription.whisper_engine"


class FakeModel:
    """The methods of faster-whisper's model that the engine uses."""

    def __init__(self, path: str, **options: Any) -> None:
        assert options["local_files_only"]
        self.path = path

    def transcribe(self, audio: Any, **_: Any) -> tuple[list[SimpleNamespace], None]:
        assert audio.dtype == np.float32
        said = SimpleNamespace(text=" chest", start=0.1, end=1.1, avg_logprob=0.0)
        nothing = SimpleNamespace(text=" ", start=1.1, end=9, avg_logprob=-9)
        return ([said, nothing] if audio.any() else []), None


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ModuleType("faster_whisper")
    library.WhisperModel = FakeModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "faster_whisper", library)
    monkeypatch.delitem(sys.modules, WHISPER, raising=False)


def test_an_unknown_engine_is_refused_with_those_known() -> None:
    with pytest.raises(ConfigurationError, match="pocketsphinx, faster-whisper"):
        load_engine(EngineSpec(engine="siri"))


def test_an_engine_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)
    monkeypatch.delitem(sys.modules, WHISPER, raising=False)
    with pytest.raises(ConfigurationError, match="pip install faster-whisper"):
        load_engine(EngineSpec(engine="faster-whisper"))


@pytest.mark.usefixtures("installed")
def test_whisper_without_a_local_model_is_refused_and_nothing_is_downloaded(tmp_path: Path) -> None:
    for model_dir in (None, tmp_path):
        with pytest.raises(ConfigurationError, match="TRANSCRIPTION_MODEL_DIR"):
            load_engine(EngineSpec(engine="faster-whisper", model_dir=model_dir))


@pytest.mark.usefixtures("installed")
def test_whisper_recognises_with_a_local_model(tmp_path: Path) -> None:
    (tmp_path / "model.bin").touch()
    engine = load_engine(EngineSpec(engine="faster-whisper", model_dir=tmp_path))
    assert engine.recognise(np.ones(16_000, np.int16)) == Words(
        text="chest", confidence=1.0, start=0.1, end=1.1
    )
    assert engine.recognise(np.zeros(16_000, np.int16)) is None


@needs_speech
def test_a_directory_without_a_pocketsphinx_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"en-us\.lm\.bin"):
        load_engine(EngineSpec(engine="pocketsphinx", model_dir=tmp_path))
