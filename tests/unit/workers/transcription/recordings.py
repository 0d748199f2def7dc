"""Recordings for the tests, most of them generated."""

import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

RATE = 16_000
DICTATION = Path(__file__).parents[4] / "examples" / "data" / "dictation.wav"


def tone(seconds: float = 0.5, rate: int = RATE, hertz: float = 440) -> npt.NDArray[np.float64]:
    """Return a sine at half of full scale."""
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def write(
    path: Path,
    samples: npt.NDArray[np.float64],
    rate: int = RATE,
    *,
    subtype: str = "PCM_16",
    form: str = "WAV",
) -> Path:
    soundfile.write(path, samples, rate, subtype=subtype, format=form)
    return path


def header(*, rate: int = RATE, channels: int = 1, bits: int = 16, data_bytes: int = 0) -> bytes:
    """Return a RIFF header with any values, valid or not."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * block % 2**32, block, bits)
    chunks = (
        b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", data_bytes)
    )
    return b"RIFF" + struct.pack("<I", min(len(chunks) + data_bytes, 2**32 - 1)) + chunks


def wrapped(tag: int, sound: bytes, extra: bytes = b"") -> bytes:
    """Return a WAV file with this format tag (RFC 2361), extra format data and encoded sound."""
    form = struct.pack("<HHIIHHH", tag, 1, RATE, 8000, 1, 0, len(extra)) + extra
    fact = struct.pack("<I", 2 * RATE)
    chunks = b"".join(
        name + struct.pack("<I", len(content)) + content
        for name, content in ((b"fmt ", form), (b"fact", fact), (b"data", sound))
    )
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks


def dictation() -> npt.NDArray[np.int16]:
    samples, _ = soundfile.read(DICTATION, dtype="int16")
    found: npt.NDArray[np.int16] = samples
    return found


def last_sentence(path: Path) -> Path:
    """Write the last and clearest sentence of the dictation, and return its path.

    Its recognition takes a fourth of the time.
    """
    soundfile.write(path, dictation()[13 * RATE :], RATE)
    return path
