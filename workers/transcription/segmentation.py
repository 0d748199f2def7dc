"""Division of speech into utterances, without cutting off the beginning or end of an utterance.

pocketsphinx's endpointer (WebRTC's voice-activity detector over a 0.3 s window) finds the speech.
However, its spans begin after the onset of the first word, so padding is added. Without padding, 2
of the 41 words of examples/data/dictation.wav were wrong: "the patient" became "a patient", and
"blood pressure" became "and pressure". With 0.1 to 0.8 s of padding, 0 words were wrong. Stricter
modes and shorter windows of the detector mostly gave worse results (up to 9 words wrong).

Other detectors are not used: silero-vad requires torch. `webrtcvad` has the same detector, and has
had no release for years.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise

import numpy as np

from workers.transcription.audio import RATE, Samples

__all__ = ["Span", "utterances"]

PADDING = 0.2
"""Seconds of padding before and after an utterance.

For examples/data/dictation.wav, half of this is enough. The pause that ends an utterance is longer
than the padding.
"""
LONGEST = 15.0
"""Maximum seconds of an utterance. The maximum limits the time between two progress updates.

The recognition of speech takes an eighth of its length, and that of noise two thirds.
"""
SEARCHED = 5.0
"""Seconds before the limit `LONGEST` in which a too long utterance is cut at its quietest point.

This is long enough, because speakers pause for breath within that time.
"""
FRAME = 480
"""Number of samples in a frame of the detector. A frame is 30 ms long."""


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
    """Return the utterances in order. They do not overlap, and each is at most 15 s long."""
    speech = list(_speech(samples))
    return [
        piece for span in _padded(speech, len(samples) / RATE) for piece in _pieces(samples, span)
    ]


def _speech(samples: Samples) -> Iterator[Span]:
    """Yield the spans that the endpointer classifies as speech."""
    # Only the recognition needs the package, and some Pythons have no wheel of it. The contracts
    # and handlers of this worker can be imported without it, for `bus topology`.
    endpointer = import_module("pocketsphinx").Endpointer(sample_rate=RATE)
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
    """Yield the spans with padding. The padding ends at the middle of a pause between two spans."""
    starts = [0.0, *((a.end + b.start) / 2 for a, b in pairwise(speech))]
    ends = [*starts[1:], duration]
    for span, first, last in zip(speech, starts, ends, strict=False):
        yield Span(start=max(span.start - PADDING, first), end=min(span.end + PADDING, last))


def _pieces(samples: Samples, span: Span) -> Iterator[Span]:
    """Yield the utterance, or if it is too long, its pieces. It is cut at its quietest points."""
    while span.end - span.start > LONGEST:
        cut = _quietest(
            samples, Span(start=span.start + LONGEST - SEARCHED, end=span.start + LONGEST)
        )
        yield Span(start=span.start, end=cut)
        span = Span(start=cut, end=span.end)
    yield span


def _quietest(samples: Samples, span: Span) -> float:
    """Return the time, in seconds, of the middle of the frame with the least energy."""
    part = span.of(samples).astype(np.float32)
    frames = part[: len(part) // FRAME * FRAME].reshape(-1, FRAME)
    return span.start + (int(np.square(frames).sum(axis=1).argmin()) + 0.5) * FRAME / RATE
