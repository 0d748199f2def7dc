"""The default engine: CMU PocketSphinx with the English model that its package ships."""

from pathlib import Path

from pocketsphinx import Config, Decoder, get_model_path

from bus import ConfigurationError
from workers.transcription.audio import Samples
from workers.transcription.engine import Words

__all__ = ["PocketSphinx", "load"]

FILLERS = ("<", "[", "+")
"""How its dictionary begins what is no word: silence `<sil>`, `[NOISE]`, `++COUGH++`."""


class PocketSphinx:
    """An offline decoder of some years: small, quick to load, an eighth of real time, best on clean read speech at 16 kHz."""

    name = "pocketsphinx"

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._frames_per_second = int(decoder.config["frate"])

    def recognise(self, utterance: Samples) -> Words | None:
        """Its words. The confidence is the mean of the words' posterior probabilities in the lattice.

        So it estimates the share of words that are right; the product over all words, which pocketsphinx itself
        reports, falls towards 0 with the length of what is said.
        """
        # Adaptation to noise and channel would otherwise go from one utterance, and patient, to the next (0.1 ms).
        self._decoder.reinit_feat()
        self._decoder.start_utt()
        # full_utt normalises over the whole utterance: 0 instead of 1 word wrong on the dictation, 1 instead of 3 at -30 dB.
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
    """The shipped model, or the one in `model_dir`, laid out alike; `ConfigurationError` where it cannot be loaded."""
    model = model_dir or Path(get_model_path("en-us"))
    try:
        return PocketSphinx(
            Decoder(
                Config(
                    hmm=str(model / "en-us"),
                    lm=str(model / "en-us.lm.bin"),
                    dict=str(model / "cmudict-en-us.dict"),
                    loglevel="FATAL",  # its log shows what it understands
                )
            )
        )
    except (RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"no pocketsphinx model in {model}; TRANSCRIPTION_MODEL_DIR has to hold en-us/, en-us.lm.bin and cmudict-en-us.dict"
        ) from error
