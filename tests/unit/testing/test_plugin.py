"""Tests of the pytest plugin, in test runs of its own."""

import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from subprocess import run

import pytest

from bus.operations.brokers import select
from bus.testing import MemoryBuses
from bus.testing.rabbitmq import isolated

ROOT = Path(__file__).parents[3]
PLUGIN = "bus.testing.plugin"
REGISTERED = any(each.name == "trunkline" for each in entry_points(group="pytest11"))
LOADED = () if REGISTERED else ("-p", PLUGIN)
SERVICE = "from tests.unit.testing.archive import *\n"


@pytest.fixture
def shown_message_values() -> None:
    """Leave the values hidden outside of the inner test runs."""


@pytest.fixture
def folder(pytester: pytest.Pytester) -> pytest.Pytester:
    """Return an empty folder whose tests run in this process, because a process takes a second."""
    pytester.makeini(
        "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )
    pytester.syspathinsert(ROOT)
    return pytester


def pytest_of(folder: pytest.Pytester, code: str, *options: str) -> str:
    """Run a test file, and return the output."""
    folder.makepyfile(code)
    quick = ("-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:hypothesispytest")
    return folder.runpytest_inprocess("-q", *quick, *LOADED, *options).stdout.str()


def test_the_plugin_is_registered_as_an_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"trunkline": PLUGIN}
    assert {each.partition(">")[0] for each in project["optional-dependencies"]["testing"]} == {
        "pytest",
        "pytest-asyncio",
    }


def test_a_run_that_does_not_use_the_bus_does_not_import_it() -> None:
    code = f"import {PLUGIN}, sys; print(*(n for n in sys.modules if n.startswith('bus.')))"
    loaded = run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert sorted(loaded.stdout.split()) == [
        "bus.errors",
        "bus.testing",
        PLUGIN,
        "bus.testing.shell",
    ]


def test_the_fixtures_work_together_and_messages_show_their_values(folder: pytest.Pytester) -> None:
    code = SERVICE + (
        "async def test_retries(buses, skip_waits, submitted, published, requested, dead):\n"
        "    await buses.serve(await buses.bus('archive'), archive())\n"
        "    await (await buses.bus('reader')).submit(Store(title='torn'))\n"
        "    await buses.settled(retries=True)\n"
        "    submitted(Store).one(title='torn')\n"
        "    dead(Store).one(title='torn')\n"
        "    published(Stored).none()\n"
        "    requested(Find).none()\n"
        "async def test_values(handle):\n"
        "    assert Place(shelf='A1') == Place(shelf='A2')\n"
        "async def test_real_time(buses):\n"
        "    import asyncio\n"
        "    from bus.testing import VirtualLoop\n"
        "    assert not isinstance(asyncio.get_running_loop(), VirtualLoop)\n"
    )
    output = pytest_of(folder, code)
    assert "1 failed, 2 passed" in output
    assert "Place(shelf='A1') == Place(shelf='A2')" in output


def test_a_conftest_can_hide_the_values_of_messages_again(folder: pytest.Pytester) -> None:
    folder.makeconftest("import pytest\n@pytest.fixture\ndef shown_message_values(): ...\n")
    code = SERVICE + "def test_values():\n    assert repr(Place(shelf='A1')) == 'Place(shelf=…)'\n"
    assert "1 passed" in pytest_of(folder, code)


def test_skip_waits_works_beside_the_users_own_event_loops(folder: pytest.Pytester) -> None:
    folder.makeconftest(
        "import asyncio\n"
        "def pytest_asyncio_loop_factories():\n"
        "    return {'own': asyncio.SelectorEventLoop}\n",
    )
    code = (
        "import asyncio\n"
        "async def test_an_hour(skip_waits):\n"
        "    await asyncio.sleep(3600)\n"
        "async def test_own():\n"
        "    assert type(asyncio.get_running_loop()) is asyncio.SelectorEventLoop\n"
    )
    assert "2 passed" in pytest_of(folder, code)


def test_without_pytest_asyncio_a_fixture_says_what_to_install(folder: pytest.Pytester) -> None:
    folder.makeconftest(
        "import sys\n"
        "from unittest.mock import patch\n"
        "from bus.testing.plugin import async_fixture\n"
        "with patch.dict(sys.modules, {'pytest_asyncio': None}):\n"
        "    @async_fixture\n"
        "    async def buses(): ...\n"
    )
    output = pytest_of(folder, "def test_it(buses): ...\n")
    assert "the fixture `buses` requires pytest-asyncio, which is not installed." in output
    assert "pip install 'trunkline[testing]'" in output


def test_without_a_rabbitmq_the_fixture_broker_fails_and_says_what_to_install(
    folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = select.Probes(installation=lambda _: None, engine=lambda _: False)
    monkeypatch.setattr(select, "Probes", lambda: nothing)
    output = pytest_of(folder, "def test_it(broker): ...\n")
    assert "1 error" in output
    assert "the fixture `broker` cannot start a RabbitMQ: this machine has no RabbitMQ" in output
    assert "or set BUS_TEST_URL=amqp://user:password@host/vhost" in output


def test_the_settings_of_the_shell_do_not_reach_a_test_also_under_xdist(
    folder: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUS_MANAGEMENT_URL", "http://live:15672")
    monkeypatch.setenv("BUS_ENCRYPT", "everything")
    monkeypatch.setenv("BUS_LOG_FORMAT", "wrong")
    monkeypatch.setenv("BUS_HEARTBEAT", "9")
    monkeypatch.setenv("BUS_AUTH", "on")
    monkeypatch.setenv("BUS_TEST_BROKER", "node")
    folder.makeconftest(
        "import os, pytest\n"
        "from contextlib import nullcontext\n"
        "import bus.testing\n"
        "os.environ['BUS_HEARTBEAT'] = '7'\n"
        "bus.testing.virtual_host = nullcontext\n"
        "@pytest.fixture\n"
        "def shared_broker(): ...\n"
    )
    code = SERVICE + (
        "import os\n"
        "from bus import Bus, Settings\n"
        "from bus.testing import MemoryTransport\n"
        "def check(settings):\n"
        "    assert settings.management_url is None\n"
        "    assert (settings.encrypt, settings.log_format) == ('contracts', 'auto')\n"
        "    assert (settings.auth, settings.heartbeat) == ('off', 7)\n"
        "async def test_buses(buses):\n"
        "    await buses.serve(await buses.bus('archive'), archive())\n"
        "    async with Bus('reader', transport=MemoryTransport(buses.broker)) as reader:\n"
        "        check(reader.settings)\n"
        "        assert await reader.request(Find(title='Emma')) == Place(shelf='B1')\n"
        "async def test_broker(broker):\n"
        "    check(Settings())\n"
        "    assert os.environ['BUS_TEST_BROKER'] == 'node'\n"
        "def test_own(monkeypatch):\n"
        "    assert os.environ['BUS_LOG_FORMAT'] == 'wrong'\n"
        "@pytest.fixture\n"
        "def own(monkeypatch):\n"
        "    monkeypatch.setenv('BUS_AUTH', 'dev')\n"
        "async def test_empty(monkeypatch, request):\n"
        "    monkeypatch.setenv('BUS_AUTH', ' ')\n"
        "    request.getfixturevalue('broker')\n"
        "    assert os.environ['BUS_AUTH'] == 'off'\n"
        "async def test_variable_of_a_test(own, buses, monkeypatch):\n"
        "    monkeypatch.setenv('BUS_HEARTBEAT', '8')\n"
        "    assert (Settings().auth, Settings().heartbeat) == ('dev', 8)\n"
    )
    folder.makepyfile(f"import pytest\n{code}")
    quick = ("-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    result = folder.runpytest_subprocess("-q", *quick, *LOADED, "-n", "1")
    result.assert_outcomes(passed=5)


async def test_memory_buses_ignore_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUS_ENCRYPT", "everything")
    monkeypatch.setenv("BUS_LOG_FORMAT", "wrong")
    async with MemoryBuses() as buses:
        bus = await buses.bus("archive", heartbeat=7)
    assert (bus.settings.encrypt, bus.settings.log_format) == ("contracts", "auto")
    assert bus.settings.heartbeat == 7


def test_the_broker_of_tests_is_never_the_broker_of_the_shell() -> None:
    shell = {"BUS_URL": "amqp://live", "BUS_MANAGEMENT_URL": "http://live", "HOME": "/root"}
    assert isolated(shell) == {"HOME": "/root"}
    assert isolated({**shell, "BUS_LOG_FORMAT": "x", "BUS_TEST_BROKER": "node"}) == {
        "HOME": "/root",
        "BUS_TEST_BROKER": "node",
    }
    named = {**shell, "BUS_TEST_URL": "amqp://ci", "BUS_TEST_MANAGEMENT_URL": "http://ci"}
    assert isolated(named)["BUS_URL"] == "amqp://ci"
    assert isolated(named)["BUS_MANAGEMENT_URL"] == "http://ci"


def test_an_empty_variable_for_tests_names_no_broker() -> None:
    empty = {"BUS_TEST_URL": " ", "BUS_TEST_MANAGEMENT_URL": "", "BUS_URL": "amqp://live"}
    assert "BUS_URL" not in isolated(empty)
    assert isolated({"BUS_TEST_URL": " amqp://ci\r\n"})["BUS_URL"] == "amqp://ci"
