"""Nameko's RPC over eventlet: JSON in, JSON out, the same model on both sides."""

import eventlet

eventlet.monkey_patch()

import sys  # noqa: E402 - eventlet patches the standard library first
from collections.abc import Callable  # noqa: E402
from typing import Any  # noqa: E402

from nameko.containers import ServiceContainer  # noqa: E402
from nameko.rpc import rpc  # noqa: E402
from nameko.standalone.rpc import ClusterRpcProxy  # noqa: E402

from benchmarks.actors.stage import (  # noqa: E402
    REPLY_TIMEOUT,
    URL,
    WrongReply,
    obey_blocking,
    say,
    sliding,
)
from benchmarks.payload import Payload, fields, numbers  # noqa: E402

WORKERS = 200
CONFIG = {"AMQP_URI": URL, "max_workers": WORKERS, "prefetch_count": WORKERS, "serializer": "json"}


class Service:
    """The service, with one method."""

    name = "nameko_bench"

    @rpc
    def echo(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Validate the message and return it."""
        return Payload.model_validate(asked).model_dump()


def serve() -> None:
    """Serve requests until killed."""
    container = ServiceContainer(Service, CONFIG)
    container.start()
    say({"ready": True})
    container.wait()


def ask() -> None:
    """Send requests, many at a time."""
    sequence = numbers()
    with ClusterRpcProxy(CONFIG, timeout=REPLY_TIMEOUT) as cluster:
        method = cluster[Service.name].echo

        def send() -> Callable[[], object]:
            number = next(sequence)
            call = method.call_async(Payload.model_validate(fields(number)).model_dump())

            def answer() -> None:
                if Payload.model_validate(call.result()).number != number:
                    raise WrongReply(str(number))

            return answer

        obey_blocking(rpc=lambda order: sliding(send, order))


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]]()
