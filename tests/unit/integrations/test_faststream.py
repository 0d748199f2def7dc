import re
import sys
from functools import partial
from importlib import import_module, reload
from types import SimpleNamespace
from typing import Any

import pytest
from aio_pika.queue import consumer
from aiormq.abc import DeliveredMessage
from faststream import FastStream
from faststream.rabbit import RabbitBroker
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from pydantic import SecretStr

from bus.errors import ConfigurationError, Unavailable
from bus.integrations.faststream import broker_of_its_own
from bus.messaging.ports.transport import Delivery
from bus.messaging.topology.consumer_spec import ConsumerSpec
from bus.messaging.topology.model import Queue, Topology
from bus.settings import Settings
from bus.transports.faststream.connection import RobustConnection, rotation_of
from bus.transports.faststream.subscriber import FastStreamConsumer
from bus.transports.rabbitmq.aiormq_channels import AiormqConsumerChannel
from bus.transports.rabbitmq.hosts_connection import HostsConnection
from bus.transports.rabbitmq.lenient_reader import accept_unknown_delivery_mode
from tests.polling import until
from tests.unit.fakes import virtual
from tests.unit.transports.rabbitmq.broker_stub import Host, hosts


class FakeChannel:
    is_closed = False
    on_consumer_cancel_callbacks: set[Any] = set()  # noqa: RUF012 - the instances may share it


def message(channel: Any, body: bytes = b"{}") -> Any:
    raw = SimpleNamespace(channel=channel, body=body, delivery_tag=1, redelivered=False)
    return SimpleNamespace(raw_message=raw)


@virtual
async def test_a_message_of_a_channel_that_is_gone_is_not_settled_on_the_next() -> None:
    link = RobustConnection(RabbitBroker(), name="desk", on_lost=lambda: None)
    came: list[Delivery] = []
    now: Any = FakeChannel()

    def opened(channel: Any) -> AiormqConsumerChannel:
        return AiormqConsumerChannel(channel, spec=spec, on_delivery=came.append, clock=lambda: 0)

    spec = ConsumerSpec(queue=Queue(name="q", role="jobs"), topology=Topology(), prefetch=1)
    consumer = FastStreamConsumer(
        link,
        spec,
        confirms=False,
        opened=opened,
    )
    consumer._taking = opened(now)
    await consumer._take(message(FakeChannel()))
    assert came == []
    await consumer._take(message(now))
    assert len(came) == 1


@pytest.mark.parametrize("mode", [0, 7, 255])
async def test_a_delivery_mode_that_aio_pika_does_not_know_keeps_no_message_from_arriving(
    mode: int,
) -> None:
    """Since RabbitMQ 4 the mode can be any number.

    aio-pika would drop the message, and it would never be settled.
    """
    came: list[Any] = []
    callbacks: list[Any] = []

    async def take(message: Any) -> None:
        came.append(message)

    async def basic_consume(callback: Any, **_: Any) -> None:
        callbacks.append(callback)

    channel: Any = SimpleNamespace(
        basic_consume=lambda _, callback, **options: basic_consume(callback, **options)
    )
    await accept_unknown_delivery_mode(channel).basic_consume(
        queue="q", consumer_callback=partial(consumer, take, no_ack=False), no_ack=False
    )
    properties = Basic.Properties(message_id="m")
    properties.delivery_mode = mode
    await callbacks[0](
        DeliveredMessage(
            Basic.Deliver(delivery_tag=1), ContentHeader(properties=properties), b"{}", channel
        )
    )
    assert [(message.message_id, message.delivery_mode) for message in came] == [("m", 1)]


def test_a_broker_of_its_own_never_shows_its_password_nor_logs_messages() -> None:
    broker = broker_of_its_own(
        Settings(url=SecretStr("amqp://user:hunter2@host:5673/vhost")), name="desk"
    )
    link = RobustConnection(broker, name="desk", on_lost=lambda: None)
    assert link._place() == "host:5673 (virtual host vhost)"
    assert "hunter2" not in repr(link._hosts)


@pytest.mark.parametrize("mark", ["/", "?", "#", "@"])
def test_no_part_of_the_url_of_an_applications_broker_is_shown(mark: str) -> None:
    """FastStream reads `1889` as a port, and the bus cannot know that it is a password."""
    broker = RabbitBroker(f"amqp://user:1889{mark}Q@host/vhost")
    link = RobustConnection(broker, name="desk", on_lost=lambda: None)
    assert link._place() == "the application's broker"
    error = link._unreachable("connecting to the application's broker: no answer in time")
    assert not {"1889", "user"} & {*re.split(r"\W", f"{error} {link._hosts!r}")}


def test_a_broker_of_its_own_takes_each_host_of_the_setting_in_turn() -> None:
    broker = broker_of_its_own(
        Settings(url=SecretStr("amqp://u:p@one,two:5673/v?heartbeat=7")), name="desk"
    )
    rotation = rotation_of(broker)
    assert rotation is not None
    urls = []
    for _ in range(3):
        urls.append(str(rotation.url))
        rotation.advance()
    assert urls == [
        "amqp://u:p@one/v?heartbeat=7&name=desk",
        "amqp://u:p@two:5673/v?heartbeat=7&name=desk",
        "amqp://u:p@one/v?heartbeat=7&name=desk",
    ]
    rotation.password = "a/b"
    assert rotation.url.password == "a/b"


async def test_a_start_names_each_host_and_also_one_that_was_not_tried() -> None:
    settings = Settings(url=SecretStr("amqp://u:p@127.0.0.1:1,localhost:2/shop"))
    broker = broker_of_its_own(settings, name="desk")
    link = RobustConnection(broker, name="desk", on_lost=lambda: None)
    with pytest.raises(Unavailable) as caught:
        await link.connect(timeout=0)
    await broker.stop()
    text = str(caught.value)
    assert "(connecting to 127.0.0.1:1 (virtual host shop): Connection refused" in text
    assert "; connecting to localhost:2 (virtual host shop): not tried in this time)" in text


async def test_a_broker_of_its_own_refuses_a_host_of_another_cluster(
    caplog: pytest.LogCaptureFixture,
) -> None:
    right, wrong = Host(cluster="x"), Host(cluster="y")
    async with hosts(right, wrong) as url:
        settings = Settings(url=SecretStr(url))
        broker = broker_of_its_own(settings, name="desk")
        rotation = rotation_of(broker)
        assert rotation is not None
        connection = HostsConnection(rotation.url, rotation=rotation, timeout=5)
        connection.reconnect_interval = 0.02
        await connection.connect()
        assert right.connected == 1
        await right.stop()
        await until(lambda: wrong.attempts >= 2, "attempts at the wrong host")
        assert not connection.connected.is_set()
        lines = [line for line in caplog.messages if "cannot connect" in line]
        assert [line.count("belongs to the cluster 'y'") for line in lines] == [1, 0]
        assert f"connecting to {right.place}: Connection refused" in lines[1]
        await right.start()
        await until(connection.connected.is_set, "the right host")
        assert (right.connected, wrong.connected) == (1, 0)
        await connection.close()


def test_the_worker_offers_an_application_that_is_made_once_and_when_it_is_asked_for() -> None:
    module = import_module("workers.transcription")
    assert isinstance(module.app, FastStream)
    assert module.app is module.app
    with pytest.raises(AttributeError, match="'aap'"):
        _ = module.aap


def test_without_faststream_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faststream", None)
    monkeypatch.delitem(sys.modules, "bus.transports.faststream.application")
    with pytest.raises(ConfigurationError, match=r"pip install 'trunkline\[faststream\]'"):
        reload(import_module("bus.transports.faststream"))
