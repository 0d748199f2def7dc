"""Functions for the program of a process that a worker started."""

import os
import signal
from multiprocessing import parent_process
from multiprocessing.connection import wait
from threading import Thread

__all__ = ["end_with_worker", "ignore_stop_signals"]


def ignore_stop_signals() -> None:
    """Ignore Ctrl-C and SIGTERM, which may be sent to the whole group of processes.

    The worker decides when this process ends: its running jobs finish first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def end_with_worker() -> None:
    """End this process as soon as the worker's process ends, even by SIGKILL and during work."""
    worker = parent_process()
    if worker is not None:
        Thread(target=_end_after, args=(worker.sentinel,), name="worker-watch", daemon=True).start()


def _end_after(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)
