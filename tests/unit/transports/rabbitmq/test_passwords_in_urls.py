"""A password that is not percent-encoded is in no text, whatever is read from its URL."""

import asyncio
import logging
import traceback
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import aio_pika
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from yarl import URL

from bus.errors import BusError
from bus.messaging.broker_addresses import describe_brokers, require_urls
from bus.operations.brokers.external import ExternalBroker
from bus.operations.brokers.select import select_broker
from bus.operations.management_api import Management, usual_address
from bus.settings import Settings, load_settings
from bus.transports.rabbitmq.connection import SupervisedConnection
from bus.transports.rabbitmq.exceptions import to_bus_error
from bus.transports.rabbitmq.handshake import vhost_of

SHORTEST = 4
"""Characters of a password that count as a part of it."""
# No text of the bus contains these letters and digits next to each other.
PASSWORDS = st.text("QZXJ189@/?#:%;,[]\\ +=&℀é\"'$", min_size=SHORTEST, max_size=16)
AMQP = (
    "amqp://user:{}@rabbit.example:5672/orders",
    "amqps://user:{}@rabbit.example",
    "amqp://user:{}@rabbit.example/?heartbeat=5",
    "amqp://user:x@one/orders;amqp://user:{}@two/orders",
    "amqp://user:{}@one,two:5673/orders",
)
HTTP = ("http://user:{}@rabbit.example:15672", "https://user:{}@one/api;https://user:x@two/api")
FINE = "amqp://user:x@rabbit.example/orders"


def parts_of(password: str) -> set[str]:
    """Return the parts of a password that must not be shown.

    Marks alone, and parts of a scheme, show nothing.
    """
    ends = range(SHORTEST, len(password) + 1)
    parts = {password[end - SHORTEST : end] for end in ends}
    return {
        part
        for part in parts
        if part not in "amqps://" and part not in "amqp://" and any(map(str.isalnum, part))
    }


def texts_of(*calls: Callable[[], Any]) -> Iterator[str]:
    """Yield the result of each call, or its error with the traceback."""
    for call in calls:
        try:
            result = call()
        except (BusError, ValidationError) as error:
            yield f"{error} {error!r}"
            yield "\n".join(
                line
                for line in traceback.format_exception(error)
                # Lines of code belong to this test, and not to the error.
                if not line.startswith("  File")
            )
        else:
            yield f"{result!r} {result}"


def library_error(url: str) -> BusError:
    """Return the error of the bus for an error of aiormq that contains its connection."""
    loop = cast("asyncio.AbstractEventLoop", SimpleNamespace(create_future=lambda: None))
    connection = aio_pika.Connection(URL(require_urls(url)[0].text), loop=loop)
    return to_bus_error(RuntimeError(f"{connection!r} closed"), "publishing")


def texts_about(url: str) -> Iterator[str]:
    """Yield all texts of the bus about a broker's URL."""
    yield from texts_of(
        lambda: load_settings(url=url),
        lambda: Settings(url=SecretStr(url)),
        lambda: [describe_brokers([each]) for each in require_urls(url)],
        lambda: require_urls(url),
        lambda: vhost_of(url),
        lambda: ExternalBroker(url),
        lambda: ExternalBroker(url).describe(),
        lambda: select_broker({"BUS_URL": url}),
        lambda: usual_address(url),
        lambda: Management("http://rabbit.example", url),
        lambda: Management("http://rabbit.example", url).where,
        lambda: library_error(url),
        lambda: SupervisedConnection(
            url, name="t", heartbeat=10, attempt_timeout=1, fastlane=True
        )._place(),
    )


@settings(max_examples=60)
@given(password=PASSWORDS, form=st.sampled_from(AMQP))
@example(password="1889/QZXJ", form=AMQP[0])
@example(password="1889?QZXJ", form=AMQP[0])
@example(password="1889#QZXJ", form=AMQP[0])
@example(password="QZXJ@1889", form=AMQP[0])
@example(password="1889,amqp://x", form=AMQP[1])
@example(password="1889;amqp://QZXJ", form=AMQP[0])
@example(password="QZXJ℀1889", form=AMQP[0])
@example(password="[QZXJ", form=AMQP[4])
def test_no_part_of_a_password_in_the_url_of_the_broker_is_shown(password: str, form: str) -> None:
    for text in texts_about(form.format(password)):
        shown = {part for part in parts_of(password) if part in text}
        assert not shown, text


@settings(max_examples=30)
@given(password=PASSWORDS, form=st.sampled_from(HTTP))
@example(password="1889/QZXJ", form=HTTP[0])
@example(password="1889?QZXJ", form=HTTP[0])
def test_no_part_of_a_password_in_the_url_of_the_management_api_is_shown(
    password: str, form: str
) -> None:
    url = form.format(password)
    for text in texts_of(
        lambda: load_settings(management_url=url),
        lambda: Settings(management_url=SecretStr(url)),
        lambda: Management(url, FINE),
        lambda: Management(url, FINE).where,
        lambda: ExternalBroker(FINE, url),
    ):
        shown = {part for part in parts_of(password) if part in text}
        assert not shown, text


def test_the_texts_of_a_correct_url_still_name_its_host_port_and_virtual_host() -> None:
    texts = "\n".join(texts_about("amqp://user:p%2Fw@rabbit.example:5673/orders"))
    assert "rabbit.example:5673 (virtual host orders)" in texts
    assert "p%2Fw" not in texts


async def test_no_line_of_a_connection_attempt_shows_the_password(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The libraries log their attempts, too."""
    with caplog.at_level(logging.DEBUG):
        link = SupervisedConnection(
            "amqp://user:QZXJ1889@127.0.0.1:1/orders",
            name="t",
            heartbeat=10,
            attempt_timeout=1,
            fastlane=False,
        )
        with pytest.raises(BusError) as caught:
            await link.start(timeout=0.2)
        await link.close()
    shown = [record.getMessage() for record in caplog.records] + [str(caught.value)]
    assert not [line for line in shown if "QZXJ" in line or "1889" in line]
    assert any("127.0.0.1:1 (virtual host orders)" in line for line in shown)
