"""The ports of a container, without a Docker engine."""

from types import SimpleNamespace

import pytest

from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.container import ContainerBroker


@pytest.mark.parametrize(
    ("mode", "host", "address"),
    [
        ("docker_host", "localhost", "127.0.0.1"),
        ("docker_host", "engine.example", "0.0.0.0"),
        ("gateway_ip", "localhost", "0.0.0.0"),
    ],
)
def test_a_chosen_password_is_reachable_from_this_machine_only_if_the_engine_allows_that(
    mode: str, host: str, address: str
) -> None:
    engine = SimpleNamespace(
        get_connection_mode=lambda: SimpleNamespace(value=mode), host=lambda: host
    )
    broker = ContainerBroker(options=BrokerOptions(port=20001, password="a b"))
    assert broker._bindings(engine) == {"5672": (address, 20001), "15672": (address,)}
    assert broker.url.startswith("amqp://bus:a%20b@")
