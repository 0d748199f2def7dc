"""The segmentation of speech into utterances."""

from itertools import pairwise

import numpy as np
import pytest

from tests.speech import needs_speech
from tests.unit.workers.transcription.recordings import RATE, dictation
from workers.transcription.segmentation import LONGEST, PADDING, utterances

pytestmark = needs_speech


def test_the_dictation_has_four_utterances_and_none_is_clipped() -> None:
    spans = utterances(dictation())
    assert len(spans) == 4
    loud = np.abs(dictation()) > 327
    outside = np.ones(len(loud), bool)
    for span in spans:
        outside[int(span.start * RATE) : int(span.end * RATE)] = False
    assert not (loud & outside).any()


def test_utterances_are_in_order_and_do_not_overlap() -> None:
    spans = utterances(np.tile(dictation(), 3))
    assert len(spans) == 12
    assert all(before.end <= after.start for before, after in pairwise(spans))


def test_padding_stops_at_the_recording_s_ends() -> None:
    speech = dictation()[int(0.5 * RATE) : 3 * RATE]
    (span,) = utterances(speech)
    assert span.start == 0
    assert span.end == pytest.approx(len(speech) / RATE)


def test_there_is_padding_before_the_first_word() -> None:
    first = utterances(dictation())[0]
    onset = int(np.argmax(np.abs(dictation()) > 327)) / RATE
    assert first.start <= onset - PADDING / 4


@pytest.mark.parametrize("seconds", [0, 0.001, 0.03, 5])
def test_silence_has_no_utterances(seconds: float) -> None:
    assert utterances(np.zeros(int(seconds * RATE), np.int16)) == []


def test_a_noise_floor_is_no_speech() -> None:
    floor = np.random.default_rng(1).normal(0, 30, 5 * RATE).astype(np.int16)
    assert utterances(floor) == []


def test_speech_without_a_pause_is_cut_where_it_is_quietest() -> None:
    noise = np.random.default_rng(1).normal(0, 3000, 40 * RATE).astype(np.int16)
    breath = int(12.34 * RATE)
    noise[breath - 480 : breath + 480] //= 10
    spans = utterances(noise)
    assert spans[0].end == pytest.approx(12.34, abs=0.03)
    assert max(span.end - span.start for span in spans) <= LONGEST
    assert all(before.end == after.start for before, after in pairwise(spans))
    assert spans[-1].end == pytest.approx(40)
