"""A service that cares about transcripts twice: two subscriptions, each with a queue of its own."""

import asyncio

from bus import Context, Router
from bus.envelope import Envelope
from contracts.transcription.v1 import TranscriptCompleted

__all__ = ["SUBSCRIPTIONS", "subscribers"]

SUBSCRIPTIONS = ("index", "notify")


def subscribers(correlation_id: str) -> tuple[Router, dict[str, "asyncio.Future[Envelope]"]]:
    """The router, and by subscription the first event with this id to arrive; the queues can hold those of earlier work."""
    router = Router("demo")
    loop = asyncio.get_running_loop()
    seen: dict[str, asyncio.Future[Envelope]] = {name: loop.create_future() for name in SUBSCRIPTIONS}

    def subscribe(name: str) -> None:
        @router.event(TranscriptCompleted, subscription=name)
        async def on_completed(_event: TranscriptCompleted, context: Context) -> None:
            if context.envelope.correlation_id == correlation_id and not seen[name].done():
                seen[name].set_result(context.envelope)

    for name in SUBSCRIPTIONS:
        subscribe(name)
    return router, seen
