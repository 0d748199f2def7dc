"""The world on RabbitMQ by way of FastStream: the same broker, and a connection that is aio-pika's robust one."""

from types import MappingProxyType

from typing_extensions import override

from bus.messaging.ports.transport import Transport
from bus.settings import Settings
from bus.transports.faststream import FastStreamTransport, broker_of_its_own
from tests.conformance.rabbitmq_world import RabbitMQWorld


class FastStreamWorld(RabbitMQWorld):
    unkept = MappingProxyType(
        {
            "test_an_alarm_leaves_the_acks_of_who_is_blocked_flowing": "one connection for all: RabbitMQ reads nothing from it, acks included"
        }
    )

    @override
    def make(self, settings: Settings, name: str) -> Transport:
        return FastStreamTransport(
            broker_of_its_own(settings, name=name), settings=settings, name=name
        )
