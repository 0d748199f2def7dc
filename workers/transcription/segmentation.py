"""Speech becomes utterances, none of them clipped.

pocketsphinx's own endpointer (WebRTC's voice-activity detector over a 0.3 s window) finds where speech is, but it cuts
inside the first word's onset. Measured on examples/data/dictation.wav, 41 words: as found, 2 words wrong ("the patient" became
"a patient", "blood pressure" became "and pressure"); with 0.1 to 0.8 s of padding, none. Its stricter modes and shorter
windows mostly make it worse (up to 9 words wrong). silero-vad needs torch, and `webrtcvad` is this detector again,
without a release for years.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pocketsphinx import Endpointer

from workers.transcription.audio import RATE, Samples

__all__ = ["Span", "utterances"]

PADDING = 0.2
"""Seconds before and after: twice what the dictation needs, less than the pause that ends an utterance."""
LONGEST = 15.0
"""Seconds. Bounds the time between two progress reports: speech takes an eighth of its length to recognise, noise two thirds."""
SEARCHED = 5.0
"""Seconds at the end of an over-long utterance in which the quietest place is cut; people pause for breath within that."""
FRAME = 480
"""Samples; 30 ms, the detector's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A stretch of a recording."""

    start: float
    """Seconds."""
    end: float
    """Seconds."""

    def of(self, samples: Samples) -> Samples:
        """Its samples."""
        return samples[int(self.start * RATE) : int(self.end * RATE)]


def utterances(samples: Samples) -> list[Span]:
    """Where somebody speaks, in order, not overlapping, each at most 15 s; empty for silence."""
    speech = list(_speech(samples))
    return [piece for span in _padded(speech, len(samples) / RATE) for piece in _pieces(samples, span)]


def _speech(samples: Samples) -> Iterator[Span]:
    """What the endpointer takes for speech."""
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
    """The same with padding, which never reaches beyond the middle of the pause to a neighbour."""
    starts = [0.0, *((a.end + b.start) / 2 for a, b in pairwise(speech))]
    ends = [*starts[1:], duration]
    for span, first, last in zip(speech, starts, ends, strict=False):
        yield Span(start=max(span.start - PADDING, first), end=min(span.end + PADDING, last))


def _pieces(samples: Samples, span: Span) -> Iterator[Span]:
    """An over-long utterance, cut where it is quietest."""
    while span.end - span.start > LONGEST:
        cut = _quietest(samples, Span(start=span.start + LONGEST - SEARCHED, end=span.start + LONGEST))
        yield Span(start=span.start, end=cut)
        span = Span(start=cut, end=span.end)
    yield span


def _quietest(samples: Samples, span: Span) -> float:
    """The middle of the frame with the least energy, in seconds."""
    part = span.of(samples).astype(np.float32)
    frames = part[: len(part) // FRAME * FRAME].reshape(-1, FRAME)
    return span.start + (int(np.square(frames).sum(axis=1).argmin()) + 0.5) * FRAME / RATE
