"""Test of the fixture `broker` of the pytest plugin."""

import asyncio
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from bus.operations.brokers.broker import Broker
from bus.operations.management_api import Management
from tests.broker import management_url

SERVICE = """
from bus import Bus, Settings
from tests.unit.testing.archive import Find, Place, archive

async def test_a_request_is_answered(broker):
    settings = Settings(url=broker.url, auth="off", connect_timeout=30)
    async with Bus("archive", settings=settings) as bus, bus.serving(archive()):
        assert await bus.request(Find(title="Emma"), timeout=30) == Place(shelf="B1")
        print("virtual host", broker.url.rpartition("/")[2])
"""


def test_the_fixture_broker_gives_a_test_a_virtual_host_and_removes_it(
    shared_broker: Broker, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUS_TEST_URL", shared_broker.url)
    monkeypatch.setenv("BUS_TEST_MANAGEMENT_URL", management_url(shared_broker))
    pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    pytester.syspathinsert(Path(__file__).parents[2])
    pytester.makepyfile(SERVICE)
    registered = any(each.name == "trunkline" for each in entry_points(group="pytest11"))
    loaded = () if registered else ("-p", "bus.testing.plugin")
    quick = ("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest")
    result = pytester.runpytest_inprocess("-q", "-s", *quick, *loaded)
    result.assert_outcomes(passed=1)
    name = result.stdout.str().partition("virtual host ")[2].split()[0]
    assert name.startswith("test-")
    management = Management(management_url(shared_broker), shared_broker.url)
    remaining = asyncio.run(management.call("GET", "vhosts"))
    assert name not in {each["name"] for each in remaining}
