"""Celery as RPC: result backend `rpc`, transient messages, pydantic validation, large prefetch."""

import os
import sys
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.signals import worker_ready

from benchmarks.actors.stage import REPLY_TIMEOUT, URL, WrongReply, obey_blocking, say, sliding
from benchmarks.payload import Payload, fields, numbers

POOL = os.environ.get("BENCH_CELERY_POOL", "threads")
app = Celery("celery_bench", broker=URL, backend="rpc://")
app.conf.update(
    task_default_queue="celery.echo",
    task_default_delivery_mode="transient",
    result_persistent=False,
    worker_prefetch_multiplier=200,
    worker_disable_rate_limits=True,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=True,
)


@app.task(pydantic=True, name="echo")
def echo(asked: Payload) -> Payload:
    """Return the message; Celery validates the argument and dumps the result."""
    return asked


def ask() -> None:
    """Send requests; the results arrive in one queue of the client."""
    sequence = numbers()

    def send() -> Callable[[], object]:
        number = next(sequence)
        result: Any = echo.delay(Payload.model_validate(fields(number)).model_dump())

        def answer() -> None:
            if Payload.model_validate(result.get(timeout=REPLY_TIMEOUT)).number != number:
                raise WrongReply(str(number))

        return answer

    obey_blocking(rpc=lambda order: sliding(send, order))


def serve() -> None:
    """Run a worker without the features that only several workers need."""
    worker_ready.connect(lambda **_: say({"ready": True}), weak=False)
    pool = ["--pool", POOL, "--concurrency", "2" if POOL == "prefork" else "1"]
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--loglevel",
            "WARNING",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            *pool,
        ]
    )


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]]()
