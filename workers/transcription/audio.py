"""A WAV of any sample rate, channel count and sample format becomes 16 kHz mono: libsndfile decodes, soxr resamples."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from bus import InvalidArgument, OutOfRange

__all__ = ["RATE", "Samples", "read_wav"]

RATE = 16_000
"""Hz; what both engines' models were trained on."""
Samples = npt.NDArray[np.int16]
"""Mono at `RATE`, shape (n,)."""

FORMATS = {"WAV", "WAVEX", "RF64"}
"""libsndfile's names of plain, extensible and over-4-GB WAV. It reads FLAC, MP3 and more, which this service does not promise."""
RATES = range(4_000, 384_001)
"""Hz; below is no speech, above no recorder, and either end lets a small file claim a long or a huge recording."""
MOST_CHANNELS = 64
"""No recorder has more; the header's field allows 65,535, each multiplying the memory of a block."""
BLOCK_VALUES = 1_000_000
"""Values decoded at a time, over all channels: 4 MB as float32, however large the file is."""


def read_wav(file: int, *, max_seconds: float) -> Samples:
    """The recording in an open file descriptor, which is closed; shape (n,), n > 0, at 16 kHz.

    Raises `InvalidArgument` for what is no WAV or holds no sound, `OutOfRange` beyond `max_seconds`.
    """
    try:
        with soundfile.SoundFile(file, closefd=True) as wav:
            _check(wav, max_seconds)
            blocks = list(_resampled(wav, max_seconds))
    except soundfile.LibsndfileError as error:
        raise InvalidArgument("the recording is not a WAV file that can be decoded; send RIFF/WAVE") from error
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    if not len(samples):
        raise InvalidArgument("the recording holds no sound (zero frames); record it again")
    return samples


def _check(wav: soundfile.SoundFile, max_seconds: float) -> None:
    """Refuse, by the header alone, what would cost more than it can be worth."""
    if wav.format not in FORMATS:
        raise InvalidArgument(f"the recording is {wav.format}, not WAV; convert it to WAV")
    if wav.samplerate not in RATES:
        raise InvalidArgument(f"the recording claims {wav.samplerate} Hz; send {RATES.start} to {RATES.stop - 1} Hz")
    if wav.channels > MOST_CHANNELS:
        raise InvalidArgument(f"the recording claims {wav.channels} channels; send at most {MOST_CHANNELS}")
    if wav.frames > max_seconds * wav.samplerate:
        raise _too_long(max_seconds)


def _resampled(wav: soundfile.SoundFile, max_seconds: float) -> Iterator[Samples]:
    """The recording in blocks at 16 kHz mono; what is decoded is counted, because a header may lie."""
    stream = soxr.ResampleStream(wav.samplerate, RATE, num_channels=1, dtype="float32")
    frames = 0
    for block in wav.blocks(BLOCK_VALUES // wav.channels, dtype="float32", always_2d=True):
        frames += len(block)
        if frames > max_seconds * wav.samplerate:
            raise _too_long(max_seconds)
        yield _int16(stream.resample_chunk(_mono(block)))
    yield _int16(stream.resample_chunk(np.zeros(0, np.float32), last=True))


def _mono(block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The mean of all channels; a float WAV may hold NaN, infinities and more than full scale, which would spread in the resampler."""
    mono: npt.NDArray[np.float32] = np.nan_to_num(block, nan=0.0).clip(-1, 1).mean(axis=1, dtype=np.float32)
    return mono


def _int16(block: npt.NDArray[np.float32]) -> Samples:
    return np.round(block * 32767).clip(-32768, 32767).astype(np.int16)


def _too_long(max_seconds: float) -> OutOfRange:
    return OutOfRange(f"the recording is longer than {max_seconds:g} s; split it, or raise TRANSCRIPTION_MAX_SECONDS")
