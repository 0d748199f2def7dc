"""The conversion of WAV files to 16 kHz mono. Other files and absurd headers are rejected."""

import os
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile

from bus.errors import InvalidArgument, OutOfRange
from tests.unit.workers.transcription.recordings import RATE, header, tone, wrapped, write
from workers.transcription.audio import Samples, read_wav


def read(path: Path, max_seconds: float = 60) -> Samples:
    return read_wav(os.open(path, os.O_RDONLY), max_seconds=max_seconds)


def pitch(samples: Samples) -> float:
    """Return the loudest frequency, in Hz."""
    return float(np.argmax(np.abs(np.fft.rfft(samples))) * RATE / len(samples))


PLAIN = ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW", "IMA_ADPCM"]


@pytest.mark.parametrize("subtype", PLAIN)
def test_every_sample_format_is_decoded(tmp_path: Path, subtype: str) -> None:
    samples = read(write(tmp_path / "a.wav", tone(), subtype=subtype))
    assert samples.dtype == np.int16
    assert pitch(samples) == pytest.approx(440, abs=3)
    assert np.abs(samples).max() == pytest.approx(16384, rel=0.05)


TELEPHONE = ["GSM610", "G721_32", "NMS_ADPCM_16", "NMS_ADPCM_24", "NMS_ADPCM_32", "MS_ADPCM"]
"""Codecs of telephony. libsndfile cannot seek in most of them."""


@pytest.mark.parametrize("codec", TELEPHONE)
def test_every_telephone_codec_is_decoded(tmp_path: Path, codec: str) -> None:
    samples = read(write(tmp_path / "a.wav", tone(rate=8000), 8000, subtype=codec))
    assert len(samples) == pytest.approx(0.5 * RATE, abs=1000)  # a codec fills its last block
    assert pitch(samples) == pytest.approx(440, abs=3)
    # A codec distorts the wave, but keeps its energy.
    assert samples.astype(np.float64).std() == pytest.approx(16384 / 2**0.5, rel=0.1)


def test_no_codec_of_libsndfile_is_left_out_of_these_tests() -> None:
    # libsndfile reads MPEG in WAV, but does not write it. Another test makes that file.
    assert {*soundfile.available_subtypes("WAV")} <= {*PLAIN, *TELEPHONE, "MPEG_LAYER_III"}


def test_a_telephone_recording_of_many_blocks_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", tone(130, 8000), 8000, subtype="GSM610")
    samples = read(path, max_seconds=200)
    assert len(samples) == pytest.approx(130 * RATE, abs=600)
    with pytest.raises(OutOfRange, match="longer than 129 s"):
        read(path, max_seconds=129)


@pytest.mark.parametrize("codec", [*TELEPHONE, "IMA_ADPCM", "ALAW"])
def test_a_truncated_or_damaged_codec_is_read_or_refused(tmp_path: Path, codec: str) -> None:
    whole = write(tmp_path / "a.wav", tone(), subtype=codec).read_bytes()
    claims = [whole[:at] + b"\xff\xff\xff\xff" + whole[at + 4 :] for at in range(12, 60, 2)]
    for content in (whole[: len(whole) // 2], whole[:61], *claims):
        (tmp_path / "a.wav").write_bytes(content)
        with suppress(InvalidArgument, OutOfRange):
            assert len(read(tmp_path / "a.wav", max_seconds=10)) > 0


def test_mpeg_in_a_wav_is_decoded(tmp_path: Path) -> None:
    mpeg = write(tmp_path / "a.mp3", tone(2), subtype="MPEG_LAYER_III", form="MP3").read_bytes()
    (tmp_path / "a.wav").write_bytes(wrapped(0x55, mpeg, struct.pack("<HIHHH", 1, 2, 1, 1, 0)))
    samples = read(tmp_path / "a.wav")
    assert len(samples) == pytest.approx(2 * RATE, abs=3000)
    assert pitch(samples) == pytest.approx(440, abs=3)


# Dolby AC-3, Microsoft WMA 2, G.723, G.729, TrueSpeech, a tag that does not exist, and zero.
@pytest.mark.parametrize("tag", [0x2000, 0x161, 0x14, 0x83, 0x22, 0xABCD, 0])
def test_an_unsupported_codec_is_refused(tmp_path: Path, tag: int) -> None:
    (tmp_path / "a.wav").write_bytes(wrapped(tag, bytes(4000)))
    with pytest.raises(InvalidArgument, match="its codec is not supported"):
        read(tmp_path / "a.wav")


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
        (header(channels=0, data_bytes=100), "not a WAV"),
        (header(rate=0, data_bytes=100), "not a WAV|0 Hz"),
        (header(bits=0, data_bytes=100), "not a WAV"),
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
