"""Division of speech into utterances, without clipping any of them.

pocketsphinx's own endpointer (WebRTC's voice-activity detector over a 0.3 s window) finds speech.
However, it cuts inside the first word's onset. examples/data/dictation.wav has 41 words. Without
padding, 2 of them were wrong: "the patient" became "a patient", and "blood pressure" became "and
pressure". With 0.1 to 0.8 s of padding, 0 words were wrong. Stricter modes and shorter windows
mostly make it worse (up to 9 words wrong). silero-vad needs torch. `webrtcvad` is the same
detector, and has had no release for years.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pocketsphinx import Endpointer

from workers.transcription.audio import RATE, Samples

__all__ = ["Span", "utterances"]

PADDING = 0.2
"""Seconds of padding before and after an utterance.

The dictation needs half of it, and the pause that ends an utterance is longer.
"""
LONGEST = 15.0
"""Maximum seconds of an utterance, which limit the time between two progress reports.

Recognition takes an eighth of the length for speech, and two thirds for noise.
"""
SEARCHED = 5.0
"""Seconds at the end of an over-long utterance that are searched for the quietest point.

Speakers pause for breath within that time.
"""
FRAME = 480
"""Samples in a frame of the detector: 30 ms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Part of a recording."""

    start: float
    """Start in seconds."""
    end: float
    """End in seconds."""

    def of(self, samples: Samples) -> Samples:
        """Return the samples of this span."""
        return samples[int(self.start * RATE) : int(self.end * RATE)]


def utterances(samples: Samples) -> list[Span]:
    """Return the spans of speech in order, without overlap, each at most 15 s; [] for silence."""
    speech = list(_speech(samples))
    return [
        piece for span in _padded(speech, len(samples) / RATE) for piece in _pieces(samples, span)
    ]


def _speech(samples: Samples) -> Iterator[Span]:
    """Yield the spans that the endpointer classifies as speech."""
    endpointer = Endpointer(sample_rate=RATE)
    speaking = False
    for at in range(0, len(samples), FRAME):
        frame = samples[at : at + FRAME]
        (endpointer.process if len(frame) == FRAME else endpointer.end_stream)(frame.tobytes())
        if speaking and not endpointer.in_speech:
            yield Span(start=endpointer.speech_start, end=endpointer.speech_end)
        speaking = endpointer.in_speech
    if speaking:
        yield Span(start=endpointer.speech_start, end=len(samples) / RATE)


def _padded(speech: list[Span], duration: float) -> Iterator[Span]:
    """Yield the spans with padding, at most to the middle of the pause before a neighbour."""
    starts = [0.0, *((a.end + b.start) / 2 for a, b in pairwise(speech))]
    ends = [*starts[1:], duration]
    for span, first, last in zip(speech, starts, ends, strict=False):
        yield Span(start=max(span.start - PADDING, first), end=min(span.end + PADDING, last))


def _pieces(samples: Samples, span: Span) -> Iterator[Span]:
    """Yield the pieces of an utterance, which is cut at its quietest points if it is too long."""
    while span.end - span.start > LONGEST:
        cut = _quietest(
            samples, Span(start=span.start + LONGEST - SEARCHED, end=span.start + LONGEST)
        )
        yield Span(start=span.start, end=cut)
        span = Span(start=cut, end=span.end)
    yield span


def _quietest(samples: Samples, span: Span) -> float:
    """Return the middle of the frame with the least energy, in seconds."""
    part = span.of(samples).astype(np.float32)
    frames = part[: len(part) // FRAME * FRAME].reshape(-1, FRAME)
    return span.start + (int(np.square(frames).sum(axis=1).argmin()) + 0.5) * FRAME / RATE
