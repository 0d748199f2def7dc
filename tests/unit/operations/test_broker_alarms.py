"""Alarms of the broker, as `bus doctor` reports them."""

import json

import pytest

from bus.cli import doctor
from bus.operations.broker_alarms import describe_alarms
from bus.operations.management_api import Management
from tests.unit.http_stub import answering
from tests.unit.transports.rabbitmq.broker_stub import Host, hosts

AMQP = "amqp://clerk:secret@broker.example/"
NODES = [
    {"name": "rabbit@one", "mem_alarm": True, "disk_free_alarm": False},
    {"name": "rabbit@two", "mem_alarm": False, "disk_free_alarm": True},
    {"name": "rabbit@stopped", "running": False},
]


async def test_each_alarm_is_described_with_its_node_and_the_remedy() -> None:
    with answering({"/api/nodes": json.dumps(NODES).encode()}) as stub:
        assert await describe_alarms(Management(stub.url, AMQP)) == [
            (
                "the broker accepts no publishes, because the node rabbit@one has a memory alarm. "
                "Free memory, or raise vm_memory_high_watermark."
            ),
            (
                "the broker accepts no publishes, because the node rabbit@two has a disk alarm. "
                "Free disk space, or lower disk_free_limit."
            ),
        ]


async def test_a_user_without_the_right_to_read_nodes_gets_no_alarms() -> None:
    with answering({}) as stub:
        assert await describe_alarms(Management(stub.url, AMQP)) == []


async def test_the_doctor_warns_of_an_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hosts(Host()) as url:
        with answering({"/api/nodes": json.dumps(NODES[:1]).encode()}) as stub:
            variables = {"BUS_URL": url, "BUS_MANAGEMENT_URL": stub.url}
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            report = await doctor.examine(variables, {}, start=False)
    assert [text for text in report.warnings if "memory alarm" in text]
