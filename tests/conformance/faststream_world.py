"""The world on RabbitMQ through FastStream, whose connection is aio-pika's robust one."""

from types import MappingProxyType

from typing_extensions import override

from bus.messaging.ports.transport import Transport
from bus.settings import Settings
from bus.transports.faststream import FastStreamTransport, broker_of_its_own
from tests.conformance.rabbitmq_world import RabbitMQWorld


class FastStreamWorld(RabbitMQWorld):
    unkept = MappingProxyType(
        {
            "test_an_alarm_leaves_the_acks_of_who_is_blocked_flowing": (
                "FastStream has one connection, and RabbitMQ reads no acks from a blocked one"
            )
        }
    )

    @override
    def make(self, settings: Settings, name: str) -> Transport:
        return FastStreamTransport(
            broker_of_its_own(settings, name=name), settings=settings, name=name
        )
