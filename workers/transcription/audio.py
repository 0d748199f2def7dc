"""Conversion of a WAV with any sample rate, channel count and sample format to 16 kHz mono.

libsndfile decodes, and soxr resamples.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from bus import InvalidArgument, OutOfRange

__all__ = ["RATE", "Samples", "read_wav"]

RATE = 16_000
"""Sample rate in Hz of the data on which both engines' models were trained."""
Samples = npt.NDArray[np.int16]
"""Mono samples at `RATE`, shape (n,)."""

FORMATS = {"WAV", "WAVEX", "RF64"}
"""libsndfile's names of plain, extensible and over-4-GB WAV.

libsndfile also reads FLAC, MP3 and other formats, which this service does not promise.
"""
RATES = range(4_000, 384_001)
"""Accepted sample rates in Hz.

Lower rates cannot carry speech, and recorders do not use higher rates. Without these limits, a
small file could claim a long or a huge recording.
"""
MOST_CHANNELS = 64
"""Maximum channels; no recorder has more.

The header's field allows 65,535, and each channel multiplies the memory of a block.
"""
BLOCK_VALUES = 1_000_000
"""Values decoded at a time, over all channels: 4 MB as float32 for a file of any size."""


def read_wav(file: int, *, max_seconds: float) -> Samples:
    """Return the recording in an open file descriptor: shape (n,), n > 0, at 16 kHz.

    The descriptor is closed. Raise `InvalidArgument` if the file is not a WAV or has no sound, and
    `OutOfRange` if it is longer than `max_seconds`.
    """
    try:
        with soundfile.SoundFile(file, closefd=True) as wav:
            _check(wav, max_seconds)
            blocks = list(_resampled(wav, max_seconds))
    except soundfile.LibsndfileError as error:
        raise InvalidArgument("the recording is not a WAV file. Send RIFF/WAVE.") from error
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    if not len(samples):
        raise InvalidArgument("the recording has no sound (zero frames). Record it again.")
    return samples


def _check(wav: soundfile.SoundFile, max_seconds: float) -> None:
    """Refuse by its header a recording that would cost too much to decode."""
    if wav.format not in FORMATS:
        raise InvalidArgument(f"the recording is {wav.format}, not WAV. Convert it to WAV.")
    if wav.samplerate not in RATES:
        expected = f"Send {RATES.start} to {RATES.stop - 1} Hz."
        raise InvalidArgument(f"the recording claims {wav.samplerate} Hz. {expected}")
    if wav.channels > MOST_CHANNELS:
        expected = f"Send at most {MOST_CHANNELS}."
        raise InvalidArgument(f"the recording claims {wav.channels} channels. {expected}")
    if wav.frames > max_seconds * wav.samplerate:
        raise _too_long(max_seconds)


def _resampled(wav: soundfile.SoundFile, max_seconds: float) -> Iterator[Samples]:
    """Yield the recording in blocks at 16 kHz mono.

    Decoded frames are counted, because a header may be wrong.
    """
    stream = soxr.ResampleStream(wav.samplerate, RATE, num_channels=1, dtype="float32")
    frames = 0
    for block in wav.blocks(BLOCK_VALUES // wav.channels, dtype="float32", always_2d=True):
        frames += len(block)
        if frames > max_seconds * wav.samplerate:
            raise _too_long(max_seconds)
        yield _int16(stream.resample_chunk(_mono(block)))
    yield _int16(stream.resample_chunk(np.zeros(0, np.float32), last=True))


def _mono(block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the mean of all channels.

    A float WAV may hold NaN, infinities and values over full scale, which would spread in the
    resampler.
    """
    mono: npt.NDArray[np.float32] = (
        np.nan_to_num(block, nan=0.0).clip(-1, 1).mean(axis=1, dtype=np.float32)
    )
    return mono


def _int16(block: npt.NDArray[np.float32]) -> Samples:
    return np.round(block * 32767).clip(-32768, 32767).astype(np.int16)


def _too_long(max_seconds: float) -> OutOfRange:
    problem = f"the recording is longer than {max_seconds:g} s"
    return OutOfRange(f"{problem}. Split it, or raise TRANSCRIPTION_MAX_SECONDS.")
