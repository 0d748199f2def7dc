"""Applications that `faststream run` serves: the router alone, and beside another application.

The errors of the handlers contain the text of the message.
"""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from faststream import FastStream
from faststream.rabbit import RabbitBroker

from bus import Context, Job, Message, Request, RetryPolicy, Router, contract
from bus.integrations.faststream import application, attach


class Answer(Message):
    text: str


@contract("ward.ask", version=1, idempotent=True)
class Ask(Request[Answer]):
    text: str
    fails: bool = False


@contract("ward.note", version=1)
class Note(Job[Answer]):
    text: str


@asynccontextmanager
async def lifespan() -> AsyncIterator[str]:
    yield "of the lifespan"


router = Router("ward", lifespan=lifespan)


@router.request(Ask)
async def ask(request: Ask, context: Context) -> Answer:
    if request.fails:
        raise RuntimeError(request.text)
    return Answer(text=f"{request.text} {context.state}")


@router.job(Note, retry=RetryPolicy(attempts=1))
async def note(job: Note) -> Answer:
    raise RuntimeError(job.text)


def alone() -> FastStream:
    return application(router)


def beside_another() -> FastStream:
    """Create an application with another subscriber and with verbose logging.

    FastStream's default logging writes a line for each message. All other loggers write at debug
    level.
    """
    logging.basicConfig(level=logging.DEBUG)
    broker = RabbitBroker(os.environ["BUS_URL"])

    @broker.subscriber("theirs")
    async def theirs(body: Any) -> None: ...

    app = FastStream(broker)
    attach(app, router)
    return app
