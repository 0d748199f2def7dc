"""Celery: a task, `delay`, and a worker with one process for each core."""

import os
import sys
import time
from pathlib import Path

from celery import Celery
from celery.signals import worker_ready

from tests.chaos.journal import Journal
from tests.chaos.peers.order import QUEUE, URL, Sending, handling

JOURNAL = sys.argv[2]
app = Celery("celery_peer", broker=URL)
app.conf.update(
    task_default_queue=QUEUE, worker_redirect_stdouts=False, broker_connection_retry_on_startup=True
)


@app.task(name="work")  # type: ignore[untyped-decorator]  # Celery ships no types
def task(number: int, seconds: float) -> None:
    """Do the work of one message."""
    handling(Journal(Path(JOURNAL)), number, seconds)


def work() -> None:
    """Run a worker."""
    worker_ready.connect(lambda **_: print("ready", flush=True), weak=False)
    app.worker_main(
        ["--quiet", "worker", "--loglevel", "WARNING", "--hostname", f"worker-{os.getpid()}@%h"]
    )


def send() -> None:
    """Send the messages one after the other, because `delay` blocks."""
    sending = Sending(JOURNAL, sys.argv[3])
    print("ready", flush=True)
    began = time.monotonic()
    for number, seconds in sending.messages():
        began = max(began, time.monotonic() - number / sending.rate - 1)
        time.sleep(max(0.0, began + number / sending.rate - time.monotonic()))
        sending.begin(number)
        try:
            task.delay(number, seconds)
        except Exception as error:  # noqa: BLE001 - Celery may raise any error
            sending.end(number, error)
        else:
            sending.end(number)


if __name__ == "__main__":
    {"work": work, "send": send}[sys.argv[1]]()
