import base64
import http.client

import pytest

from bus.errors import ConfigurationError, Unavailable
from bus.operations.management_api import Management, usual_address
from tests.unit.http_stub import answering

AMQP = "amqp://clerk:se%40cret@broker.example/"


def basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


async def test_a_path_before_the_api_and_the_password_of_amqp_are_used() -> None:
    with answering({"/rabbit/api/overview": b'{"rabbitmq_version": "4.0.5"}'}) as stub:
        assert await Management(f"{stub.url}/rabbit/", AMQP).version() == "4.0.5"
    assert stub.asked == [("/rabbit/api/overview", basic("clerk", "se@cret"))]


async def test_a_user_of_its_own_comes_first() -> None:
    with answering({"/api/overview": b'{"rabbitmq_version": "4.0.5"}'}) as stub:
        await Management(stub.url.replace("//", "//monitor:other@"), AMQP).version()
    assert stub.asked == [("/api/overview", basic("monitor", "other"))]


async def test_a_web_server_that_is_no_management_api_is_told_as_one() -> None:
    with (
        answering({"/api/overview": b"<h1>Welcome</h1>"}) as stub,
        pytest.raises(Unavailable, match="not a management API"),
    ):
        await Management(stub.url, AMQP).version()


NOT_OVERVIEWS = {
    "empty": b"",
    "list": b"[]",
    "null": b"null",
    "text": b'"x"',
    "no field": b"{}",
    "field of another type": b'{"rabbitmq_version": 4, "cluster_name": []}',
    "nested deeply": b"[" * 100_000,
    "not UTF-8": b"\xff\xfe",
}


@pytest.mark.parametrize("body", NOT_OVERVIEWS.values(), ids=NOT_OVERVIEWS)
async def test_an_unexpected_answer_is_an_error_and_the_next_host_is_called(body: bytes) -> None:
    right = {"/api/overview": b'{"rabbitmq_version": "4.0.5", "cluster_name": "x"}'}
    with answering({"/api/overview": body}) as odd, answering(right) as stub:
        place = odd.url.removeprefix("http://")
        with pytest.raises(Unavailable) as caught:
            await Management(odd.url, AMQP).version()
        assert str(caught.value) == (
            f"the server on {place} is not a management API of RabbitMQ: it answered GET overview "
            "with 200 and unexpected content"
        )
        for cluster in (None, "x"):
            api = Management(f"{odd.url},{stub.url}", AMQP, cluster=cluster)
            assert await api.version() == "4.0.5"


@pytest.mark.parametrize("body", [b"", b"{}", b'["x"]', b'[{"name": 1}]', b'[{"name": "a"}, {}]'])
async def test_a_list_without_the_expected_fields_is_an_error(body: bytes) -> None:
    with (
        answering({"/api/queues": body}) as stub,
        pytest.raises(Unavailable, match="GET queues with 200 and unexpected content"),
    ):
        await Management(stub.url, AMQP).read_list("queues", {"name": str})


@pytest.mark.parametrize("status", [301, 302])
async def test_a_redirect_is_an_error_and_gets_no_credentials(status: int) -> None:
    answers = {"/api/overview": b"", "/elsewhere": b'{"rabbitmq_version": "4.0.5"}'}
    with answering(answers, status=status) as stub:
        with pytest.raises(Unavailable) as caught:
            await Management(stub.url, AMQP).version()
        place = stub.url.removeprefix("http://")
    assert f"management API on {place} answered GET overview with {status} " in str(caught.value)
    assert [path for path, _ in stub.asked] == ["/api/overview"]


async def test_an_answer_that_breaks_http_is_told_and_prints_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(_answer: http.client.HTTPResponse) -> bytes:
        # As for a chunk with a negative size.
        raise ValueError("read length must be non-negative or -1")

    monkeypatch.setattr(http.client.HTTPResponse, "read", read)
    with (
        answering({"/api/overview": b"{}"}) as stub,
        pytest.raises(Unavailable, match="does not answer: read length"),
    ):
        await Management(stub.url, AMQP).version()


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ("http://broker.example", "http://broker.example:15672"),
        ("https://broker.example", "https://broker.example:443"),
        ("https://user:secret@broker.example:15671/rabbit/", "https://broker.example:15671/rabbit"),
    ],
)
def test_the_address_is_shown_without_the_password(given: str, where: str) -> None:
    assert Management(given, AMQP).where == where


@pytest.mark.parametrize(
    "given",
    [
        "broker.example:15672",
        "amqp://broker.example",
        "http://",
        "http://host:port",
        "http://host:0",
        "http://broker..example",
        f"http://{'b' * 64}.example",
        "",
    ],
)
def test_what_is_no_address_is_an_error_that_says_what_to_write(given: str) -> None:
    with pytest.raises(ConfigurationError, match="BUS_MANAGEMENT_URL"):
        Management(given, AMQP)


async def test_the_next_host_of_the_api_is_called_if_the_first_one_does_not_answer() -> None:
    with answering({"/api/overview": b'{"rabbitmq_version": "4.0.5"}'}) as stub:
        api = Management(f"http://127.0.0.1:1;{stub.url}", AMQP)
        assert await api.version() == "4.0.5"
        assert await api.version() == "4.0.5"
        assert api.where == stub.url
    assert len(stub.asked) == 2


async def test_the_error_names_each_host_of_the_api_that_does_not_answer() -> None:
    with pytest.raises(Unavailable) as caught:
        await Management("http://u:p@127.0.0.1:1,127.0.0.1:2", AMQP).version()
    for port in (1, 2):
        assert f"management API on 127.0.0.1:{port} does not answer" in str(caught.value)


async def test_a_host_of_the_api_in_another_cluster_is_skipped() -> None:
    wrong = {"/api/overview": b'{"cluster_name": "y"}', "/api/queues": b"[]"}
    right = {"/api/overview": b'{"cluster_name": "x"}', "/api/queues": b'["books"]'}
    with answering(wrong) as other, answering(right) as stub:
        api = Management(f"{other.url},{stub.url}", AMQP, cluster="x")
        assert await api.call("GET", "queues") == ["books"]
        with pytest.raises(Unavailable, match="belongs to the cluster 'y', and not to 'z'"):
            await Management(f"{other.url},{stub.url}", AMQP, cluster="z").call("GET", "queues")


async def test_each_host_of_the_api_gets_the_credentials_of_its_broker() -> None:
    brokers = "amqp://a:1@elsewhere;amqp://b:2@127.0.0.1"
    with answering({"/api/overview": b'{"rabbitmq_version": "4.0.5"}'}) as stub:
        await Management(stub.url, brokers).version()
    assert stub.asked == [("/api/overview", basic("b", "2"))]


def test_the_usual_addresses_of_several_hosts_are_a_list() -> None:
    assert usual_address("amqp://u:p@one,two:5673/v") == "http://one:15672;http://two:15672"


def test_the_usual_address_is_encrypted_where_amqp_is() -> None:
    assert (
        usual_address("amqp://user:password@broker.example:5673/vhost")
        == "http://broker.example:15672"
    )
    assert (
        usual_address("amqps://user:password@broker.example/vhost")
        == "https://broker.example:15671"
    )
    assert usual_address("amqp://user:password@[::1]/") == "http://[::1]:15672"
