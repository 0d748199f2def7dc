"""Optional engine: faster-whisper with a model on this machine.

The engine never downloads a model.
"""

from math import exp
from pathlib import Path

import numpy as np
from faster_whisper import WhisperModel

from bus import ConfigurationError
from workers.transcription.audio import Samples
from workers.transcription.engine import Words

__all__ = ["Whisper", "load"]


class Whisper:
    """Speech recogniser with OpenAI's Whisper model, run by CTranslate2.

    It makes far fewer errors than pocketsphinx, but needs gigabytes and takes seconds.
    """

    name = "faster-whisper"

    def __init__(self, model: WhisperModel) -> None:
        self._model = model

    def recognise(self, utterance: Samples) -> Words | None:
        """Return the words of an utterance.

        The confidence is the mean token probability, exp(avg_logprob), weighted by the segments'
        lengths.
        """
        # Do not use earlier text as a hint: the words of one patient must not influence the
        # transcript of another patient.
        found, _ = self._model.transcribe(
            utterance.astype(np.float32) / 32768, language="en", condition_on_previous_text=False
        )
        segments = [segment for segment in found if segment.text.strip()]
        if not segments:
            return None
        lengths = [max(segment.end - segment.start, 0.01) for segment in segments]
        sure = sum(
            exp(segment.avg_logprob) * length
            for segment, length in zip(segments, lengths, strict=True)
        )
        return Words(
            text=" ".join(segment.text.strip() for segment in segments),
            confidence=min(sure / sum(lengths), 1.0),
            start=segments[0].start,
            end=segments[-1].end,
        )


def load(model_dir: Path | None) -> Whisper:
    """Load the model in `model_dir`. Raise `ConfigurationError` if this fails."""
    if model_dir is None or not (model_dir / "model.bin").is_file():
        problem = "TRANSCRIPTION_MODEL_DIR is not set, or has no model.bin"
        raise ConfigurationError(f"{problem}. Set it to the folder of a faster-whisper model.")
    try:
        return Whisper(
            WhisperModel(str(model_dir), device="cpu", compute_type="int8", local_files_only=True)
        )
    except (RuntimeError, ValueError) as error:
        problem = f"the faster-whisper model in {model_dir} cannot be loaded"
        raise ConfigurationError(f"{problem}. Convert it again.") from error
