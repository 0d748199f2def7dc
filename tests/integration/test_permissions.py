"""Tests of the reference application's grants as users and permissions of RabbitMQ.

They check what each service can do at the broker, and what it cannot do.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import quote
from uuid import UUID, uuid4

import aiormq
import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused, ChannelPreconditionFailed
from pamqp.commands import Basic
from pydantic import SecretStr

from bus import (
    Bus,
    Context,
    InvalidArgument,
    PermissionDenied,
    RetryPolicy,
    Router,
    Settings,
    Unavailable,
)
from bus.contracts.contract import contract_of
from bus.operations.brokers.broker import Broker
from bus.operations.topology.permissions import ADMINISTRATOR
from bus.security.grants_file import load_grants
from bus.transports.faststream import FastStreamTransport, broker_of_its_own
from contracts.documentation.v1 import (
    CreateNote,
    DocumentGenerated,
    GenerateDocuments,
    GetNote,
    GetNoteStatus,
    NoteStatus,
)
from contracts.transcription.v1 import (
    GetTranscript,
    TranscribeAudio,
    Transcript,
    TranscriptCompleted,
)
from tests.integration.broker_users import Place, place_for
from tests.integration.command import ROOT
from tests.polling import BRIEF, until

pytestmark = pytest.mark.timeout(120)

MODELS = (
    GetTranscript,
    TranscribeAudio,
    TranscriptCompleted,
    CreateNote,
    GetNote,
    GetNoteStatus,
    GenerateDocuments,
    DocumentGenerated,
)
CONTRACTS = [contract_of(model) for model in MODELS]
TRANSCRIBE = "transcription.jobs.transcribe.v1"
WAIT = 20
"""Seconds to wait for steps that take milliseconds, because the machine may be busy."""


# --- The services, with trivial handlers ---


def transcript(of: UUID) -> Transcript:
    return Transcript(
        transcript_id=of,
        text="",
        confidence=0,
        duration=1,
        language="en",
        engine="none",
        segments=(),
    )


transcription = Router("transcription")
documentation = Router("documentation")
demo = Router("demo")
heard: list[TranscriptCompleted] = []


@transcription.request(GetTranscript)
async def get(request: GetTranscript) -> Transcript:
    return transcript(request.transcript_id)


@transcription.job(TranscribeAudio, retry=RetryPolicy(attempts=2, first_delay=1, factor=1))
async def transcribe(job: TranscribeAudio, context: Context) -> Transcript:
    await context.progress(0.5, "half of it")
    if job.audio_url == "broken" or context.envelope.attempt == 1:
        raise (
            InvalidArgument("no recording") if job.audio_url == "broken" else Unavailable("not yet")
        )
    done = transcript(uuid4())
    await context.bus.publish(
        TranscriptCompleted(transcript_id=done.transcript_id, duration=1, words=0)
    )
    return done


@documentation.request(GetNoteStatus)
async def status(request: GetNoteStatus, context: Context) -> NoteStatus:
    """Send another request, then fail."""
    await context.bus.request(GetTranscript(transcript_id=request.note_id), timeout=WAIT)
    raise InvalidArgument("asked")


@demo.event(TranscriptCompleted)
async def on_completed(event: TranscriptCompleted) -> None:
    heard.append(event)


# --- The broker ---


@pytest.fixture
async def place(shared_broker: Broker, vhost_url: str) -> AsyncIterator[Place]:
    grants = load_grants(ROOT / "grants.toml", CONTRACTS)
    async with place_for(
        shared_broker, vhost_url, (transcription, documentation, demo), grants, CONTRACTS
    ) as place:
        yield place


@pytest.fixture
async def channel_of(place: Place) -> AsyncIterator[Callable[[str], Awaitable[AbstractChannel]]]:
    opened: list[aiormq.abc.AbstractConnection] = []

    async def channel(user: str) -> AbstractChannel:
        opened.append(await aiormq.connect(place.address(user)))
        return await opened[-1].channel(publisher_confirms=True, on_return_raises=False)

    yield channel
    for each in opened:
        await each.close()


ChannelOf = Callable[[str], Awaitable[AbstractChannel]]


# --- Permitted operations ---


async def test_each_service_works_with_a_user_that_can_do_no_more(place: Place) -> None:
    heard.clear()
    async with (
        place.bus("transcription") as first,
        first.serving(transcription),
        place.bus("documentation") as second,
        second.serving(documentation),
        place.bus("demo") as caller,
        caller.serving(demo),
    ):
        with pytest.raises(InvalidArgument, match="asked"):
            await caller.request(GetNoteStatus(note_id=uuid4()), timeout=WAIT)

        job = await caller.submit(TranscribeAudio(audio_url="good"), timeout=WAIT)
        notes = [update.note async for update in job.updates()]
        done = await job.result(timeout=WAIT)
        assert notes.count("half of it") == 2
        assert any("attempt 1 of 2 failed" in note for note in notes)
        await until(
            lambda: [each.transcript_id for each in heard] == [done.transcript_id], "the event"
        )

        broken = await caller.submit(TranscribeAudio(audio_url="broken"), timeout=WAIT)
        with pytest.raises(InvalidArgument, match="no recording"):
            await broken.result(timeout=WAIT)
        (letter,) = await first.dead_letters(TRANSCRIBE)
        assert letter.record.code == "invalid_argument"
        assert (await first.replay(TRANSCRIBE)).replayed == 1


async def test_a_message_has_its_senders_user_and_copies_of_it_have_none(
    place: Place, channel_of: ChannelOf
) -> None:
    administrator = await channel_of(ADMINISTRATOR)
    async with place.bus("demo") as caller:
        await caller.submit(TranscribeAudio(audio_url="broken"), timeout=WAIT)
        sent = await taken(administrator, TRANSCRIBE)
        assert (sent.header.properties.user_id, sent.header.properties.app_id) == ("demo", "demo")
        await administrator.close()  # the broker requeues the message
        async with place.bus("transcription") as worker, worker.serving(transcription):
            copy = await taken(await channel_of(ADMINISTRATOR), f"{TRANSCRIBE}.dead")
        assert (copy.header.properties.user_id, copy.header.properties.app_id) == (None, "demo")


async def taken(channel: AbstractChannel, queue: str) -> DeliveredMessage:
    """Wait for the first message of a queue, and return it."""
    arrived: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
    await channel.basic_consume(queue, arrived.put)
    return await asyncio.wait_for(arrived.get(), WAIT)


async def test_by_faststream_a_caller_gets_its_answers_as_well(place: Place) -> None:
    settings = Settings(url=SecretStr(place.address("demo")), topology="verify")
    transport = FastStreamTransport(
        broker_of_its_own(settings, name="demo"), settings=settings, name="demo"
    )
    caller = Bus("demo", settings=settings, transport=transport)
    async with place.bus("transcription") as worker, worker.serving(transcription), caller:
        await caller.request(GetTranscript(transcript_id=uuid4()), timeout=WAIT)


async def test_a_caller_has_one_queue_for_replies_and_another_after_its_connection_was_lost(
    place: Place,
) -> None:
    async with (
        place.bus("transcription", discovery="off") as worker,  # its queue has such a name, too
        worker.serving(transcription),
        place.bus("demo", discovery="off") as caller,
    ):
        await caller.request(GetTranscript(transcript_id=uuid4()), timeout=WAIT)
        before = await own_queues(place)
        for connection in await connections(place, "demo"):
            await place.api.call("DELETE", f"connections/{quote(connection)}")
        await until(lambda: not caller.ready, "the loss", poll=BRIEF)
        await until(lambda: caller.ready, "the way back")
        await caller.request(GetTranscript(transcript_id=uuid4()), timeout=WAIT)
        after = await own_queues(place)
        assert (len(before), len(after), len(before & after)) == (2, 2, 1), (
            "the worker has one, too"
        )


async def own_queues(place: Place) -> set[str]:
    """Return the queue names that the broker generated."""
    listed = await place.api.call("GET", f"queues/{place.vhost}?disable_stats=true")
    return {each["name"] for each in listed if each["name"].startswith("amq.gen-")}


async def connections(place: Place, user: str) -> list[str]:
    """Wait until the management API lists a user's three connections, and return their names.

    The API lists a connection some time after it was opened.
    """
    async with asyncio.timeout(WAIT):
        while True:
            names = [
                each["name"]
                for each in await place.api.call("GET", "connections")
                if each["user"] == user
            ]
            if len(names) == 3:
                return names
            await asyncio.sleep(0.2)


# --- Operations that the user of `documentation` may not do ---

Attempt = Callable[[AbstractChannel], Awaitable[object]]


async def nothing(_message: object) -> None:
    """Ignore a message."""


def bound(exchange: str, key: str | None) -> Attempt:
    """Return an attempt to bind the queue that a service may declare.

    Without a key the routing key is a reply queue's name of the service itself.
    """

    async def attempt(channel: AbstractChannel) -> object:
        own = (await channel.queue_declare("", exclusive=True)).queue or ""
        return await channel.queue_bind(own, exchange, routing_key=key or "documentation.replies.1")

    return attempt


def published(exchange: str, key: str) -> Attempt:
    return lambda channel: channel.basic_publish(b"{}", exchange=exchange, routing_key=key)


REFUSED: dict[str, Attempt] = {
    "read another's jobs": lambda channel: channel.basic_consume(TRANSCRIBE, nothing),
    "take one of another's jobs": lambda channel: channel.basic_get(TRANSCRIBE),
    "read another's requests": lambda channel: channel.basic_consume(
        "transcription.requests.get.v1", nothing
    ),
    "read another's events": lambda channel: channel.basic_consume(
        "demo.events.transcription.completed.v1", nothing
    ),
    "read another's dead letters": lambda channel: channel.basic_consume(
        f"{TRANSCRIBE}.dead", nothing
    ),
    "read another's retries": lambda channel: channel.basic_consume(
        "transcription.retry.1s", nothing
    ),
    "read what another lost on the way back": lambda channel: channel.basic_consume(
        "transcription.unroutable.dead", nothing
    ),
    "empty another's queue": lambda channel: channel.queue_purge(TRANSCRIBE),
    "delete another's queue": lambda channel: channel.queue_delete(TRANSCRIBE),
    "delete an exchange": lambda channel: channel.exchange_delete("bus.jobs"),
    "delete its own work queue": lambda channel: channel.queue_delete(
        "documentation.requests.get-note-status.v1"
    ),
    "declare a work queue": lambda channel: channel.queue_declare(
        "documentation.jobs.more.v1", durable=True
    ),
    "declare another's reply queue": lambda channel: channel.queue_declare(
        "demo.replies.attacker", exclusive=True
    ),
    "declare an exchange whose alternate takes any key": lambda channel: channel.exchange_declare(
        "documentation.replies.1",
        exchange_type="direct",
        arguments={"alternate-exchange": "bus.requests"},
    ),
    "declare such an exchange by a name of the broker's": lambda channel: channel.exchange_declare(
        "amq.gen-documentation",
        exchange_type="direct",
        arguments={"alternate-exchange": "bus.requests"},
    ),
    "declare a queue of its own name": lambda channel: channel.queue_declare(
        "documentation.replies.1", exclusive=True
    ),
    "declare an exchange": lambda channel: channel.exchange_declare(
        "bus.other", exchange_type="topic"
    ),
    "collect another's requests": bound("bus.requests", "transcription.get.v1"),
    "collect all requests": bound("bus.requests", "#"),
    "collect another's jobs": bound("bus.jobs", "transcription.transcribe.v1"),
    "collect events that it may not consume": bound("bus.events", "transcription.completed.v1"),
    "collect another's replies": bound("bus.replies", "demo.replies.1"),
    "collect all replies": bound("bus.replies", "#"),
    "collect all replies of a pattern": bound("bus.replies", "*.replies.#"),
    "collect another's results": bound("bus.updates", "demo.replies.1"),
    "collect another's dead letters": bound("bus.dead", TRANSCRIBE),
    "collect another's retries": bound("transcription.retry.1s", ""),
    "bind a work queue elsewhere": lambda channel: channel.queue_bind(
        "documentation.requests.get-note-status.v1",
        "bus.replies",
        routing_key="documentation.replies.1",
    ),
    "ask what it may not call": published("bus.requests", "documentation.create-note.v1"),
    "submit what it may not call": published("bus.jobs", "transcription.transcribe.v1"),
    "publish another's event": published("bus.events", "transcription.completed.v1"),
    "put a message into another's queue": published("", TRANSCRIBE),
    "put a message into another's retries": published("transcription.retry.1s", TRANSCRIBE),
    "put a message onto another's way back": published("transcription.return", TRANSCRIBE),
    "put a message into another's dead letters": published("bus.dead", TRANSCRIBE),
    "read questions to another": bound("bus.control", "ask.service.transcription"),
    "read answers to another": bound("bus.control", "answer.demo.1"),
    "read answers to commands": bound("bus.control", "answer.bus.1"),
    "read all answers": bound("bus.control", "answer.#"),
    "hear announcements without the right": bound("bus.control", "announce.*"),
    "ask all without the right": published("bus.control", "ask.all"),
    "ask a service that it does not call": published("bus.control", "ask.service.demo"),
    "announce another": published("bus.control", "announce.transcription"),
    "answer itself": published("bus.replies", "documentation.replies.1"),
    "answer who is no service": published("bus.replies", "nobody.replies.1"),
}


async def test_what_a_user_may_not_do_is_refused(channel_of: ChannelOf) -> None:
    allowed: list[str] = []
    for name, attempt in REFUSED.items():
        channel = await channel_of("documentation")
        try:
            await asyncio.wait_for(attempt(channel), WAIT)
        except ChannelAccessRefused:
            continue
        allowed.append(name)
    assert allowed == []


async def test_the_same_is_open_to_who_may_do_it(channel_of: ChannelOf) -> None:
    """Check permitted operations, since the refusals above could otherwise have other reasons."""
    channel = await channel_of("documentation")
    await bound("bus.replies", None)(channel)
    await bound("bus.updates", None)(channel)
    await published("bus.requests", "transcription.get.v1")(channel)
    await published("bus.events", "documentation.document-generated.v1")(channel)
    await published("bus.replies", "demo.replies.1")(channel)
    await bound("bus.control", "ask.service.documentation")(channel)
    await bound("bus.control", "answer.documentation.1")(channel)
    await published("bus.control", "answer.bus.1")(channel)
    await published("bus.control", "announce.documentation")(channel)
    await published("bus.control", "ask.service.transcription")(channel)
    await channel.basic_consume("documentation.requests.get-note-status.v1", nothing)


async def test_a_service_hears_at_once_that_it_may_not_submit(place: Place) -> None:
    async with place.bus("documentation") as bus:
        with pytest.raises(
            PermissionDenied,
            match=r"access to exchange 'bus\.jobs' in vhost .* refused for user 'documentation'",
        ) as told:
            await bus.submit(TranscribeAudio(audio_url="x"), timeout=WAIT)
        assert not told.value.maybe_executed


async def test_nobody_publishes_with_another_services_name(channel_of: ChannelOf) -> None:
    channel = await channel_of("documentation")
    as_another = Basic.Properties(user_id="transcription", app_id="transcription")
    with pytest.raises(
        ChannelPreconditionFailed,
        match="user_id property set to 'transcription' but authenticated user was 'documentation'",
    ):
        await channel.basic_publish(
            b"{}",
            exchange="bus.requests",
            routing_key="transcription.get.v1",
            properties=as_another,
        )
