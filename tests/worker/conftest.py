"""What the tests of the recogniser share: they take seconds each, and so are no unit tests."""

from pathlib import Path

import pytest
import soundfile

from tests.unit.transcription.recordings import DICTATION, RATE, dictation
from workers.transcription.engine import Engine, EngineSpec, load_engine

SPEC = EngineSpec(engine="pocketsphinx")
STARTED_WITHIN = 30.0


@pytest.fixture(scope="session")
def engine() -> Engine:
    return load_engine(SPEC)


@pytest.fixture(scope="session")
def said() -> list[str]:
    return DICTATION.with_suffix(".txt").read_text().split()


@pytest.fixture(scope="session")
def sentence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dictation's last sentence, its clearest, as a recording of its own."""
    path = tmp_path_factory.mktemp("recordings") / "sentence.wav"
    soundfile.write(path, dictation()[13 * RATE :], RATE)
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.wav"
    path.write_bytes(b"no sound")
    return path
