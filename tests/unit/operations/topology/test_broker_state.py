"""The check of a service's queues if the management API answers unexpectedly."""

import json
import logging

import pytest
from pydantic import SecretStr

from bus.errors import ConfigurationError
from bus.messaging.topology.control import CONTROL_EXCHANGE
from bus.messaging.topology.declarations import BASE_EXCHANGES
from bus.messaging.topology.model import Queue, Topology
from bus.operations.topology.required import RequiredTopology
from bus.operations.topology.verify import check_policies, policies_on
from bus.settings import Settings
from tests.unit.http_stub import answering
from tests.unit.transports.rabbitmq.broker_stub import Host, hosts

REQUIRED = RequiredTopology(topology=Topology(), services=frozenset({"books"}), attempts={})
LISTS = ("exchanges", "queues", "bindings", "policies", "operator-policies")
RIGHT = {
    "/api/overview": b'{"cluster_name": "one"}',
    "/api/vhosts/%2F": b"{}",
    **{f"/api/{kind}/%2F": b"[]" for kind in LISTS},
}


@pytest.mark.parametrize("path", [path for path in RIGHT if "vhosts" not in path])
@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"{}", b'"x"', b"[0]", b"[{}]", b"[" * 100_000],
    ids=["empty", "null", "object", "text", "number", "no fields", "nested deeply"],
)
async def test_a_service_starts_with_a_warning_if_the_api_answers_unexpectedly(
    path: str, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with hosts(Host(cluster="one")) as url:
        with answering({**RIGHT, path: body}) as stub:
            settings = Settings(url=SecretStr(url), management_url=SecretStr(stub.url))
            await check_policies(REQUIRED, settings)
    (record,) = caplog.records
    assert record.message.startswith("books: the settings and policies of its queues were not")
    assert f"the server on {stub.url.removeprefix('http://')} is not a management" in record.message


async def test_a_service_starts_if_only_the_default_type_of_queues_is_unexpected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    async with hosts(Host(cluster="one")) as url:
        with answering({**RIGHT, "/api/vhosts/%2F": b"[]"}) as stub:
            settings = Settings(url=SecretStr(url), management_url=SecretStr(stub.url))
            await check_policies(REQUIRED, settings)
    assert not caplog.records


async def test_a_missing_exchange_of_the_control_channel_stops_no_start() -> None:
    for names, stops in (
        ([*BASE_EXCHANGES.exchanges[1:]], True),
        (BASE_EXCHANGES.exchanges, False),
    ):
        listed = json.dumps(
            [
                {
                    "name": each.name,
                    "type": each.kind,
                    "durable": True,
                    "auto_delete": False,
                    "internal": False,
                    "arguments": {},
                }
                for each in names
            ]
        )
        needed = RequiredTopology(
            topology=BASE_EXCHANGES | CONTROL_EXCHANGE, services=frozenset({"books"}), attempts={}
        )
        async with hosts(Host(cluster="one")) as url:
            with answering({**RIGHT, "/api/exchanges/%2F": listed.encode()}) as stub:
                settings = Settings(
                    url=SecretStr(url), management_url=SecretStr(stub.url), topology="verify"
                )
                checking = check_policies(needed, settings)
                if stops:
                    with pytest.raises(ConfigurationError, match=r"exchange bus\.requests") as told:
                        await checking
                    assert "bus.control" not in str(told.value)
                else:
                    await checking


@pytest.mark.parametrize("kind", ["policies", "operator-policies"])
async def test_policies_are_not_read_from_an_unexpected_answer(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    with answering({**RIGHT, f"/api/{kind}/%2F": b'[{"name": "a"}]'}) as stub:
        settings = Settings(
            url=SecretStr("amqp://127.0.0.1:1/"), management_url=SecretStr(stub.url)
        )
        queue = Queue(name="books.jobs.close.v1", role="jobs")
        assert await policies_on(queue, settings) == {}
    assert "the RabbitMQ policies for books.jobs.close.v1 were not read" in caplog.text
