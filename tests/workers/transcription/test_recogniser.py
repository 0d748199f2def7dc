"""Tests of recognition, from recordings to words, in this process."""

import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from tests.speech import needs_speech
from tests.unit.workers.transcription.recordings import DICTATION, RATE, dictation
from tests.workers.transcription.words import word_errors
from workers.transcription import segmentation
from workers.transcription.engine import Engine
from workers.transcription.recogniser import Begun, Heard, recognise

pytestmark = needs_speech

SENTENCE = "take one tablet in the morning and come back in two weeks"


def heard(engine: Engine, path: Path) -> list[Heard]:
    begun, *rest = recognise(engine, os.open(path, os.O_RDONLY), 60)
    assert isinstance(begun, Begun)
    return [message for message in rest if isinstance(message, Heard)]


def text(messages: list[Heard]) -> list[str]:
    return " ".join(message.words.text for message in messages if message.words).split()


@pytest.fixture(scope="module")
def whole(engine: Engine) -> list[Heard]:
    """Recognise the dictation once."""
    return heard(engine, DICTATION)


def test_the_dictation_is_understood_but_for_a_few_words(
    whole: list[Heard], said: list[str]
) -> None:
    # The measured value is 0 of 41 with pocketsphinx 5.1.1.
    assert word_errors(text(whole), said) / len(said) <= 0.1


def test_segments_are_in_order_inside_the_recording_and_sure_to_some_degree(
    whole: list[Heard],
) -> None:
    words = [message.words for message in whole if message.words]
    assert len(words) == 4
    assert all(before.end <= after.start for before, after in pairwise(words))
    assert all(0 <= w.start < w.end <= 17.67 and 0.3 < w.confidence <= 1 for w in words)


def test_without_padding_a_first_word_is_lost_that_is_there_with_it(
    engine: Engine, whole: list[Heard], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmentation, "PADDING", 0.0)
    second = segmentation.utterances(dictation())[1]
    words = engine.recognise(second.of(dictation()))
    assert words
    # The words are "and pressure is normal", and this error is the reason for the padding.
    assert words.text.split()[0] != text(whole[1:2])[0] == "blood"


def test_a_stereo_recording_of_cd_quality_is_understood_as_well(
    engine: Engine, tmp_path: Path
) -> None:
    mono = soxr.resample(dictation()[13 * RATE :].astype(np.float64) / 32768, RATE, 44_100)
    soundfile.write(
        tmp_path / "a.wav", np.column_stack([mono, mono * 0.5]), 44_100, subtype="PCM_24"
    )
    assert word_errors(text(heard(engine, tmp_path / "a.wav")), SENTENCE.split()) <= 1


def test_silence_gives_no_words(engine: Engine, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(3 * RATE), RATE)
    assert heard(engine, tmp_path / "a.wav") == []


def test_what_was_recognised_before_changes_nothing(engine: Engine) -> None:
    loud = dictation()[RATE : 2 * RATE]
    quiet = (dictation()[5 * RATE : 6 * RATE] * 0.03).astype(np.int16)
    before = engine.recognise(quiet)
    engine.recognise(loud)
    assert engine.recognise(quiet) == before


def test_too_little_sound_for_a_word_is_no_words(engine: Engine) -> None:
    assert engine.recognise(np.zeros(160, np.int16)) is None
