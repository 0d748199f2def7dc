"""Migrations of one queue, one after the other, each killed where it is told to be.

usage: python -m tests.integration.doomed QUEUE DEATHS

DEATHS is JSON, a list of [STEP, MOVED]: the migration kills itself (SIGKILL) at the first report whose step is STEP, once MOVED messages
were moved in it; an empty STEP kills none. Settings come from the environment. How each ended is printed as
JSON. Each is a fork of this process, which has one thread and no event loop: what has to be imported is imported once.
"""

import asyncio
import json
import os
import signal
import sys

from bus.operations.topology.migrate import MigrationProgress, migrate
from bus.runtime.requirements import required_by
from bus.settings import load_settings
from tests.integration.ledger import router


def main(queue: str, deaths: str) -> None:
    """Let them die, or live."""
    json.dump([ended(queue, step, moved) for step, moved in json.loads(deaths)], sys.stdout)


def ended(queue: str, step: str, moved: int) -> int:
    """The exit code of one migration; that of a signal is below 0."""
    child = os.fork()
    if not child:
        live(queue, step, moved)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def live(queue: str, step: str, moved: int) -> None:
    """Migrate, or die."""

    def report(progress: MigrationProgress) -> None:
        if progress.step == step and progress.moved >= moved:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = load_settings()
    asyncio.run(migrate(queue, required_by([router], settings), settings, report=report))


if __name__ == "__main__":
    main(*sys.argv[1:])
