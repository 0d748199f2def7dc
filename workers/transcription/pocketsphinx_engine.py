"""Default engine: CMU PocketSphinx with the English model from the `pocketsphinx` package."""

from pathlib import Path

from pocketsphinx import Config, Decoder, get_model_path

from bus import ConfigurationError
from workers.transcription.audio import Samples
from workers.transcription.engine import Words

__all__ = ["PocketSphinx", "load"]

FILLERS = ("<", "[", "+")
"""Prefixes of dictionary entries that are not words, such as `<sil>`, `[NOISE]`, `++COUGH++`."""


class PocketSphinx:
    """Speech recogniser that works offline. It is some years old, small and quick to load.

    Recognition takes an eighth of the recording's length. It is most accurate for clean read speech
    at 16 kHz.
    """

    name = "pocketsphinx"

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._frames_per_second = int(decoder.config["frate"])

    def recognise(self, utterance: Samples) -> Words | None:
        """Return the words of an utterance.

        The confidence is the mean of the words' posterior probabilities in the lattice. This mean
        estimates the share of correct words. The confidence that pocketsphinx reports is not used:
        it is the product over all words, so it approaches 0 for long utterances.
        """
        # Reset the decoder's adaptation to noise and channel, which takes 0.1 ms. Without this, an
        # utterance would affect the next utterance, even in the recording of another patient.
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        # full_utt normalises the signal over the whole utterance. With it, the transcript of
        # examples/data/dictation.wav has 0 wrong words instead of 1, and at -30 dB 1 instead of 3.
        self._decoder.process_raw(utterance.tobytes(), full_utt=True)
        self._decoder.end_utt()
        return self._words()

    def _words(self) -> Words | None:
        hypothesis = self._decoder.hyp()
        words = [word for word in self._decoder.seg() or () if not word.word.startswith(FILLERS)]
        if hypothesis is None or not words:
            return None
        return Words(
            text=hypothesis.hypstr,
            confidence=min(sum(word.prob for word in words) / len(words), 1.0),
            start=words[0].start_frame / self._frames_per_second,
            end=(words[-1].end_frame + 1) / self._frames_per_second,
        )


def load(model_dir: Path | None) -> PocketSphinx:
    """Load the model in `model_dir`. If `model_dir` is None, load the model of the package.

    Both have the same files. Raise `ConfigurationError` if the model cannot be loaded.
    """
    model = model_dir or Path(get_model_path("en-us"))
    try:
        return PocketSphinx(
            Decoder(
                Config(
                    hmm=str(model / "en-us"),
                    lm=str(model / "en-us.lm.bin"),
                    dict=str(model / "cmudict-en-us.dict"),
                    loglevel="FATAL",  # its log contains the recognised words
                )
            )
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"the pocketsphinx model in {model} cannot be loaded. Set TRANSCRIPTION_MODEL_DIR "
            "to a folder with en-us/, en-us.lm.bin and cmudict-en-us.dict."
        ) from error
