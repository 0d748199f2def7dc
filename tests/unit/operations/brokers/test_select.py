from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from bus.errors import ConfigurationError
from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.external import ExternalBroker
from bus.operations.brokers.installation import Installation, find_installation
from bus.operations.brokers.private_node import PrivateNode
from bus.operations.brokers.select import BrokerChoice, Probes, broker_for, select_broker

NODE = Installation(
    server=Path("/opt/rabbitmq-server"),
    ctl=Path("/opt/rabbitmqctl"),
    epmd=Path("/opt/epmd"),
    search_path="/opt",
)
URL = "amqp://someone:secret@broker.example:5673/clinic"


def machine(*, node: bool = False, engine: bool = False, testcontainers: bool = True) -> Probes:
    return Probes(
        installation=lambda _: NODE if node else None,
        engine=lambda _: engine,
        module=lambda name: ModuleType(name) if testcontainers else None,
    )


EVERYTHING = machine(node=True, engine=True)
TESTCONTAINERS = {"BUS_TEST_BROKER": "testcontainers"}
ORDER: list[tuple[str, Mapping[str, str], Probes, bool, str, str]] = [
    ("BUS_URL comes first", {"BUS_URL": URL}, EVERYTHING, True, "named", "BUS_URL names it"),
    ("then this machine's RabbitMQ", {}, EVERYTHING, True, "node", "/opt/rabbitmq-server"),
    (
        "an empty BUS_URL names nothing",
        {"BUS_URL": ""},
        EVERYTHING,
        False,
        "node",
        "BUS_URL is not set",
    ),
    ("then a container", {}, machine(engine=True), True, "container", "a Docker engine answers"),
    (
        "then memory, where it will do",
        {},
        machine(),
        True,
        "memory",
        "apt-get install rabbitmq-server",
    ),
    (
        "memory when asked for",
        {"BUS_URL": "memory:"},
        EVERYTHING,
        True,
        "memory",
        "BUS_URL selects",
    ),
    (
        "an engine alone is not enough",
        {},
        machine(engine=True, testcontainers=False),
        True,
        "memory",
        "trunkline[containers]",
    ),
    (
        "a container when asked for",
        TESTCONTAINERS,
        EVERYTHING,
        True,
        "container",
        "BUS_TEST_BROKER=testcontainers",
    ),
    (
        "a node when asked for",
        {"BUS_TEST_BROKER": "node"},
        EVERYTHING,
        True,
        "node",
        "BUS_TEST_BROKER=node",
    ),
    (
        "nothing asked for",
        {"BUS_TEST_BROKER": ""},
        EVERYTHING,
        True,
        "node",
        "/opt/rabbitmq-server",
    ),
    (
        "BUS_URL comes before what is asked for",
        {**TESTCONTAINERS, "BUS_URL": URL},
        EVERYTHING,
        True,
        "named",
        "BUS_URL names it",
    ),
]
NOTHING: list[tuple[str, Mapping[str, str], Probes, str]] = [
    ("nothing is there", {}, machine(), "apt-get install rabbitmq-server"),
    ("only an engine", {}, machine(engine=True, testcontainers=False), "trunkline[containers]"),
    ("memory is no broker", {"BUS_URL": "memory:"}, EVERYTHING, "inside one process"),
    (
        "a container without an engine",
        TESTCONTAINERS,
        machine(node=True),
        "no Docker engine answers",
    ),
    (
        "a container without its library",
        TESTCONTAINERS,
        machine(engine=True, testcontainers=False),
        "trunkline[containers]",
    ),
    (
        "a node that is not there",
        {"BUS_TEST_BROKER": "node"},
        machine(engine=True),
        "no rabbitmq-server",
    ),
    ("a broker of no kind", {"BUS_TEST_BROKER": "docker"}, EVERYTHING, "node or testcontainers"),
    (
        "a URL of something else",
        {"BUS_URL": "http://secret@example"},
        EVERYTHING,
        "amqp://user:password@host:port/vhost",
    ),
]


@pytest.mark.parametrize(
    ("environment", "probes", "memory", "kind", "why"),
    [row[1:] for row in ORDER],
    ids=[row[0] for row in ORDER],
)
def test_the_first_that_can_be_had_is_chosen(
    environment: Mapping[str, str], probes: Probes, memory: bool, kind: str, why: str
) -> None:
    choice = select_broker(environment, memory=memory, probes=probes)
    assert choice.kind == kind
    assert why in choice.why


@pytest.mark.parametrize(
    ("environment", "probes", "advice"),
    [row[1:] for row in NOTHING],
    ids=[row[0] for row in NOTHING],
)
def test_where_there_is_none_the_error_says_what_to_do(
    environment: Mapping[str, str], probes: Probes, advice: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        select_broker(environment, probes=probes)
    assert advice in str(caught.value)
    assert "secret" not in str(caught.value)


def test_an_own_broker_is_chosen_although_another_one_is_named() -> None:
    choice = select_broker({"BUS_URL": URL}, own=True, probes=EVERYTHING)
    assert (choice.kind, choice.url) == ("node", None)
    assert "its options require a new broker" in choice.why


@pytest.mark.parametrize("blank", ["", " ", "\t\r\n", "\N{NO-BREAK SPACE}"])
def test_a_variable_of_spaces_is_not_set(blank: str) -> None:
    empty = dict.fromkeys(
        ("BUS_URL", "BUS_MANAGEMENT_URL", "BUS_TEST_BROKER", "BUS_TEST_IMAGE"), blank
    )
    assert select_broker(empty, probes=EVERYTHING).kind == "node"
    image = select_broker({**empty, **TESTCONTAINERS}, probes=EVERYTHING).image
    assert image is None


def test_space_around_a_variable_does_not_count() -> None:
    padded = {"BUS_URL": f" {URL}\r\n", "BUS_MANAGEMENT_URL": "\thttp://there:15672 "}
    choice = select_broker(padded, probes=EVERYTHING)
    assert (choice.url, choice.management_url) == (URL, "http://there:15672")


def test_a_container_keeps_no_data_and_says_so() -> None:
    choice = BrokerChoice(kind="container", why="it is here")
    with pytest.raises(ConfigurationError, match="cannot keep its data in a directory"):
        broker_for(choice, BrokerOptions(keep=Path("kept")))


def test_the_options_reach_the_broker(tmp_path: Path) -> None:
    installation = Installation(
        server=tmp_path, ctl=tmp_path, epmd=tmp_path, search_path=str(tmp_path)
    )
    choice = BrokerChoice(kind="node", why="it is here", installation=installation)
    options = BrokerOptions(port=20001, management_port=20002, password="a b")
    for kept in (None, tmp_path / "kept"):
        broker = broker_for(choice, replace(options, keep=kept))
        assert broker.url == "amqp://bus:a%20b@127.0.0.1:20001/"
        assert broker.management_url == "http://127.0.0.1:20002"


@pytest.mark.parametrize(
    "named",
    [
        {"BUS_URL": "amqp://user:1888/QZXJ@host/v"},
        {"BUS_URL": URL, "BUS_MANAGEMENT_URL": "http://user:1888/QZXJ@host"},
    ],
)
def test_a_named_broker_with_an_ambiguous_url_is_refused_before_any_command_shows_it(
    named: Mapping[str, str],
) -> None:
    with pytest.raises(ConfigurationError, match="must be percent-encoded") as caught:
        select_broker(named)
    assert not {"1888", "QZXJ", "host"} & {*str(caught.value).split()}


def test_several_named_hosts_are_described_without_their_passwords() -> None:
    choice = select_broker({"BUS_URL": "amqp://u:hunter2@one,two:5673/v"})
    described = broker_for(choice).describe()
    assert described == "the RabbitMQ that BUS_URL names, on one:5672, two:5673"


def test_a_named_broker_is_taken_as_it_is() -> None:
    choice = select_broker({"BUS_URL": URL, "BUS_MANAGEMENT_URL": "http://broker.example:15672"})
    broker = broker_for(choice)
    assert broker == ExternalBroker(URL, "http://broker.example:15672")


def test_no_description_shows_the_password() -> None:
    choice = select_broker({"BUS_URL": URL})
    broker = broker_for(choice)
    assert "broker.example:5673" in broker.describe()
    assert "secret" not in f"{choice!r} {broker!r} {broker.describe()}"


def test_a_node_is_made_of_the_installation_that_was_found() -> None:
    broker = broker_for(select_broker({}, probes=EVERYTHING))
    assert isinstance(broker, PrivateNode)
    assert not broker.running


@pytest.mark.parametrize(
    ("environment", "image"),
    [({}, None), ({"BUS_TEST_IMAGE": ""}, None), ({"BUS_TEST_IMAGE": "rabbitmq:9"}, "rabbitmq:9")],
)
@pytest.mark.parametrize("why", [{}, TESTCONTAINERS], ids=["nothing else", "asked for"])
def test_a_container_is_of_the_image_that_is_named(
    why: Mapping[str, str], environment: Mapping[str, str], image: str | None
) -> None:
    assert select_broker({**why, **environment}, probes=machine(engine=True)).image == image


def test_what_is_asked_for_is_never_replaced_by_memory() -> None:
    with pytest.raises(ConfigurationError, match="no Docker engine"):
        select_broker(TESTCONTAINERS, memory=True, probes=machine())


def test_the_broker_in_memory_is_none_that_can_be_started() -> None:
    with pytest.raises(ConfigurationError, match="memory"):
        broker_for(BrokerChoice(kind="memory", why="it will do"))


def scripts(directory: Path) -> Path:
    directory.mkdir(parents=True)
    for name in ("rabbitmq-server", "rabbitmqctl", "epmd"):
        (directory / name).touch(mode=0o755)
    return directory


def test_a_named_home_is_preferred_to_the_package_and_that_to_the_path(tmp_path: Path) -> None:
    on_path, packaged = scripts(tmp_path / "path"), scripts(tmp_path / "packaged")
    home = scripts(tmp_path / "home" / "sbin")
    environment = {"PATH": str(on_path)}
    chosen = [
        find_installation({**environment, "RABBITMQ_HOME": str(tmp_path / "home")}, packaged),
        find_installation(environment, packaged),
        find_installation(environment, tmp_path / "nowhere"),
        find_installation({"PATH": str(tmp_path)}, tmp_path / "nowhere"),
    ]
    assert [each and each.server.parent for each in chosen] == [home, packaged, on_path, None]


def test_a_scheme_in_capitals_is_accepted_as_in_the_settings() -> None:
    choice = select_broker({"BUS_URL": "AMQPS://someone:secret@broker.example"})
    assert (choice.kind, choice.url) == ("named", "AMQPS://someone:secret@broker.example")
