"""The optional engine: faster-whisper with a model that is on this machine. Nothing is ever downloaded."""

from math import exp
from pathlib import Path

import numpy as np
from faster_whisper import WhisperModel

from bus import ConfigurationError
from workers.transcription.audio import Samples
from workers.transcription.engine import Words

__all__ = ["Whisper", "load"]


class Whisper:
    """OpenAI's Whisper on CTranslate2: far fewer wrong words than pocketsphinx, for gigabytes and seconds."""

    name = "faster-whisper"

    def __init__(self, model: WhisperModel) -> None:
        self._model = model

    def recognise(self, utterance: Samples) -> Words | None:
        """Its words. The confidence is the mean token probability, exp(avg_logprob), weighted by the segments' lengths."""
        # Without the text so far as a hint: what one patient said must not colour what another is taken to say.
        found, _ = self._model.transcribe(utterance.astype(np.float32) / 32768, language="en", condition_on_previous_text=False)
        segments = [segment for segment in found if segment.text.strip()]
        if not segments:
            return None
        lengths = [max(segment.end - segment.start, 0.01) for segment in segments]
        sure = sum(exp(segment.avg_logprob) * length for segment, length in zip(segments, lengths, strict=True))
        return Words(
            text=" ".join(segment.text.strip() for segment in segments),
            confidence=min(sure / sum(lengths), 1.0),
            start=segments[0].start,
            end=segments[-1].end,
        )


def load(model_dir: Path | None) -> Whisper:
    """The model in `model_dir`; `ConfigurationError` where there is none."""
    if model_dir is None or not (model_dir / "model.bin").is_file():
        raise ConfigurationError("faster-whisper needs a model on this machine; set TRANSCRIPTION_MODEL_DIR to where its model.bin is")
    try:
        return Whisper(WhisperModel(str(model_dir), device="cpu", compute_type="int8", local_files_only=True))
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(f"the faster-whisper model in {model_dir} cannot be loaded; convert it anew") from error
