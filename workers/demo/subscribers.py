"""Service with three event subscriptions, each with its own queue.

Two subscriptions receive the event of a completed transcript, and one the event of a document.
"""

import asyncio

from bus import Context, Envelope, Event, Router
from contracts.documentation.v1 import DocumentGenerated
from contracts.transcription.v1 import TranscriptCompleted

__all__ = ["subscribers"]

SUBSCRIPTIONS: dict[str, type[Event]] = {
    "index": TranscriptCompleted,
    "notify": TranscriptCompleted,
    "archive": DocumentGenerated,
}


def subscribers(correlation_id: str) -> tuple[Router, dict[str, "asyncio.Future[Envelope]"]]:
    """Return the router, and a future for each subscription.

    The future's result is the first event with this correlation id at that subscription. Events
    with other ids are ignored, because the queues can still hold events of earlier runs.
    """
    router = Router("demo")
    loop = asyncio.get_running_loop()
    seen: dict[str, asyncio.Future[Envelope]] = {
        name: loop.create_future() for name in SUBSCRIPTIONS
    }

    def subscribe(name: str, event: type[Event]) -> None:
        @router.event(event, subscription=name)
        async def on_event(_event: Event, context: Context) -> None:
            if context.envelope.correlation_id == correlation_id and not seen[name].done():
                seen[name].set_result(context.envelope)

    for name, event in SUBSCRIPTIONS.items():
        subscribe(name, event)
    return router, seen
