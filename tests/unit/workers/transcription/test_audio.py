"""The conversion of WAV files to 16 kHz mono. Other files and absurd headers are rejected."""

import os
from pathlib import Path

import numpy as np
import pytest

from bus.errors import InvalidArgument, OutOfRange
from tests.unit.workers.transcription.recordings import RATE, header, tone, write
from workers.transcription.audio import Samples, read_wav


def read(path: Path, max_seconds: float = 60) -> Samples:
    return read_wav(os.open(path, os.O_RDONLY), max_seconds=max_seconds)


def pitch(samples: Samples) -> float:
    """Return the loudest frequency, in Hz."""
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * RATE / len(samples))


@pytest.mark.parametrize(
    "subtype",
    ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"],
)
def test_every_sample_format_is_decoded(tmp_path: Path, subtype: str) -> None:
    samples = read(write(tmp_path / "a.wav", tone(), subtype=subtype))
    assert samples.dtype == np.int16
    assert pitch(samples) == pytest.approx(440, abs=3)
    assert np.abs(samples).max() == pytest.approx(16384, rel=0.05)


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 16000, 22050, 44100, 48000, 96000, 384000])
def test_every_rate_becomes_16_khz_of_the_same_length_and_pitch(tmp_path: Path, rate: int) -> None:
    samples = read(write(tmp_path / "a.wav", tone(rate=rate), rate))
    assert len(samples) == pytest.approx(0.5 * RATE, abs=2)
    assert pitch(samples) == pytest.approx(440, abs=3)


@pytest.mark.parametrize("channels", [2, 3, 8])
def test_channels_are_mixed(tmp_path: Path, channels: int) -> None:
    one_speaks = np.zeros((RATE // 2, channels))
    one_speaks[:, -1] = tone()
    samples = read(write(tmp_path / "a.wav", one_speaks, form="WAVEX"))
    assert np.abs(samples).max() == pytest.approx(16384 / channels, rel=0.02)


@pytest.mark.parametrize("form", ["WAVEX", "RF64"])
def test_extensible_and_large_wav_are_wav(tmp_path: Path, form: str) -> None:
    assert len(read(write(tmp_path / "a.wav", tone(), form=form))) == RATE // 2


def test_a_recording_of_many_blocks_is_whole(tmp_path: Path) -> None:
    samples = read(write(tmp_path / "a.wav", tone(30, 44_100), 44_100))
    assert len(samples) == pytest.approx(30 * RATE, abs=2)
    assert pitch(samples) == pytest.approx(440, abs=0.1)


def test_a_float_recording_may_hold_nonsense_and_stays_in_range(tmp_path: Path) -> None:
    nonsense = tone()
    nonsense[100:104] = [np.nan, np.inf, -np.inf, 1e30]
    samples = read(write(tmp_path / "a.wav", nonsense, subtype="DOUBLE"))
    assert pitch(samples) == pytest.approx(440, abs=3)


def test_a_truncated_recording_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone())
    path.write_bytes(path.read_bytes()[: 44 + RATE // 2])
    assert len(read(path)) == RATE // 4


@pytest.mark.parametrize("claimed", [2**31, 2**32 - 1])
def test_a_header_that_claims_more_than_the_file_holds_gains_nothing(
    tmp_path: Path, claimed: int
) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(header(data_bytes=claimed) + bytes(RATE))
    assert len(read(path)) == RATE // 2


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        (header(rate=1, data_bytes=100), "1 Hz"),
        (header(rate=2**31 - 1, data_bytes=100), "2147483647 Hz"),
        (header(channels=1000, data_bytes=2000), "1000 channels"),
    ],
)
def test_an_absurd_header_is_refused(tmp_path: Path, claims: bytes, told: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(claims + bytes(2000))
    with pytest.raises(InvalidArgument, match=told):
        read(path)


@pytest.mark.parametrize(
    "content", [b"", b"R", b"%PDF-1.7 a letter", b"RIFF\x04\x00\x00\x00WAVE", os.urandom(4096)]
)
def test_what_is_no_wav_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    with pytest.raises(InvalidArgument, match="not a WAV"):
        read(path)


def test_another_audio_format_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="FLAC, not WAV"):
        read(write(tmp_path / "a.wav", tone(), form="FLAC"))


def test_no_frames_are_no_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(header())
    with pytest.raises(InvalidArgument, match="zero frames"):
        read(path)


def test_a_recording_over_the_time_limit_is_out_of_range(tmp_path: Path) -> None:
    with pytest.raises(OutOfRange, match=r"longer than 0\.4 s"):
        read(write(tmp_path / "a.wav", tone()), max_seconds=0.4)


def test_good_and_bad_recordings_leave_no_file_open(tmp_path: Path) -> None:
    good, bad = write(tmp_path / "a.wav", tone()), tmp_path / "b.wav"
    bad.write_bytes(b"nothing")
    before = list(Path("/proc/self/fd").iterdir())
    read(good)
    with pytest.raises(InvalidArgument):
        read(bad)
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)
