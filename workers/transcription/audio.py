"""Conversion of a WAV with any sample rate, channel count and sample format to 16 kHz mono.

libsndfile decodes the file, and soxr changes its sample rate.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from bus import InvalidArgument, OutOfRange

__all__ = ["RATE", "Samples", "read_wav"]

RATE = 16_000
"""Sample rate in Hz that both engines expect, because their models were trained with it."""
Samples = npt.NDArray[np.int16]
"""Mono samples at `RATE`, shape (n,)."""

FORMATS = {"WAV", "WAVEX", "RF64"}
"""Accepted file formats, by libsndfile's names: plain WAV, extensible WAV, and WAV over 4 GB.

libsndfile can also read FLAC, MP3 and other formats, but this service accepts only WAV.
"""
RATES = range(4_000, 384_001)
"""Accepted sample rates in Hz.

Speech is not intelligible at lower rates, and recorders do not use higher rates. Without these
limits, the header of a small file could claim an extremely long or large recording.
"""
MOST_CHANNELS = 64
"""Maximum number of channels. No recorder has more.

A WAV header can claim 65,535 channels, and a block of frames needs memory for each channel.
"""
BLOCK_VALUES = 1_000_000
"""Maximum number of values in a decoded block, all channels together.

A block takes 4 MB as float32, independent of the size of the file.
"""


def read_wav(file: int, *, max_seconds: float) -> Samples:
    """Read the recording from an open file descriptor, and close the descriptor.

    The result has the shape (n,) with n > 0, at 16 kHz. Raise `InvalidArgument` if the file is not
    a WAV, has an unsupported codec or has no sound. Raise `OutOfRange` if the recording is longer
    than `max_seconds`.
    """
    try:
        with soundfile.SoundFile(file, closefd=True) as wav:
            _check(wav, max_seconds)
            blocks = list(_resampled(wav, max_seconds))
    except soundfile.LibsndfileError as error:
        problem = "the recording is not a WAV file, or its codec is not supported"
        raise InvalidArgument(f"{problem}. Send RIFF/WAVE with PCM.") from error
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    if not len(samples):
        raise InvalidArgument("the recording has no sound (zero frames). Record it again.")
    return samples


def _check(wav: soundfile.SoundFile, max_seconds: float) -> None:
    """Refuse a recording if its header shows that decoding would take too much time or memory."""
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

    The frames are counted while they are decoded, because the length in the header may be wrong.
    """
    stream = soxr.ResampleStream(wav.samplerate, RATE, num_channels=1, dtype="float32")
    frames = 0
    for block in _blocks(wav):
        frames += len(block)
        if frames > max_seconds * wav.samplerate:
            raise _too_long(max_seconds)
        yield _int16(stream.resample_chunk(_mono(block)))
    yield _int16(stream.resample_chunk(np.zeros(0, np.float32), last=True))


def _blocks(wav: soundfile.SoundFile) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the recording in blocks, shape (frames, channels)."""
    # `SoundFile.blocks` needs a seekable file, and libsndfile cannot seek in GSM 6.10, G.721 and
    # NMS ADPCM.
    size = BLOCK_VALUES // wav.channels
    while len(block := wav.read(size, dtype="float32", always_2d=True)):
        yield block


def _mono(block: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the mean of all channels.

    NaN, infinities and values over full scale are replaced first. A float WAV may hold such values,
    and the resampler would spread one of them to many samples.
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
