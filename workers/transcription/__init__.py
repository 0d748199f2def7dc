"""The transcription service: a recording goes in, its transcript comes out.

    source        where a recording comes from: a file, or a download
    audio         a WAV of any kind becomes 16 kHz mono
    segmentation  speech becomes utterances
    engine        an utterance becomes words (a Protocol; pocketsphinx and, optionally, faster-whisper)
    recogniser    all of the above after the source, in a process of its own
    pool          those processes, leased one to a job
    service       the handlers

The settings are in `settings`, and nothing else here reads the environment.
"""

from workers.transcription.service import router

__all__ = ["router"]
