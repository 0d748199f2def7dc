"""Fixtures of the recogniser's tests.

Each test takes seconds, so they are not unit tests.
"""

from pathlib import Path

import pytest

from tests.unit.workers.transcription.recordings import DICTATION, last_sentence
from workers.transcription.engine import Engine, EngineSpec, load_engine

SPEC = EngineSpec(engine="pocketsphinx")
STARTED_WITHIN = 120.0


@pytest.fixture(scope="session")
def engine() -> Engine:
    return load_engine(SPEC)


@pytest.fixture(scope="session")
def said() -> list[str]:
    return DICTATION.with_suffix(".txt").read_text().split()


@pytest.fixture(scope="session")
def sentence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return last_sentence(tmp_path_factory.mktemp("recordings") / "sentence.wav")


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    path = tmp_path / "broken.wav"
    path.write_bytes(b"no sound")
    return path
