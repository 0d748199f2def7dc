"""Program that asks for the result of a job by its id: `python -m workers.demo.ask ID`.

The demonstration runs it as a process of its own. The process did not submit the job.
"""

import asyncio
import sys

from bus import Bus
from contracts.transcription.v1 import TranscribeAudio

__all__ = ["main"]

TIMEOUT = 300.0
"""Maximum seconds to wait for the result, several times a job's duration on a slow machine."""


async def main(job_id: str) -> None:
    """Print the text of a transcript, which the job with this id makes or has made."""
    async with Bus("demo") as bus:
        transcript = await bus.job(TranscribeAudio, job_id).result(timeout=TIMEOUT)
    sys.stdout.write(f"{transcript.text}\n")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
