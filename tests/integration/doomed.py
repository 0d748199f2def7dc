"""A program that runs migrations of one queue one after the other, each killed at a given step.

usage: python -m tests.integration.doomed QUEUE DEATHS

DEATHS is a JSON list of [STEP, MOVED]. The migration kills itself (SIGKILL) at the first report of
the step STEP with at least MOVED moved messages. An empty STEP kills no migration. Settings come
from the environment. The exit codes are printed as JSON. Each migration is a fork of this process,
which has one thread and no event loop, so that modules are imported only once.
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
    """Run the migrations, and print their exit codes."""
    json.dump([ended(queue, step, moved) for step, moved in json.loads(deaths)], sys.stdout)


def ended(queue: str, step: str, moved: int) -> int:
    """Run one migration in a child process, and return its exit code (negative for a signal)."""
    child = os.fork()
    if not child:
        live(queue, step, moved)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def live(queue: str, step: str, moved: int) -> None:
    """Migrate the queue, and kill this process at the given step."""

    def report(progress: MigrationProgress) -> None:
        if progress.step == step and progress.moved >= moved:
            os.kill(os.getpid(), signal.SIGKILL)

    settings = load_settings()
    asyncio.run(migrate(queue, required_by([router], settings), settings, report=report))


if __name__ == "__main__":
    main(*sys.argv[1:])
