import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bus.errors import ConfigurationError
from bus.operations.brokers import container
from bus.operations.brokers.container import ContainerBroker
from bus.operations.brokers.docker import addresses, engine_answers


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[tuple[str, list[bytes]]]:
    """Serve one ping on a socket. The test can change the answer, which is in the list."""
    path, answers = tmp_path / "docker.sock", [b"HTTP/1.0 200 OK\r\n\r\nOK"]
    with closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(path))
        server.listen()
        thread = threading.Thread(target=answer, args=(server, answers), daemon=True)
        thread.start()
        yield f"unix://{path}", answers
        thread.join(5)


def answer(server: socket.socket, answers: list[bytes]) -> None:
    server.settimeout(5)
    connection, _ = server.accept()
    with connection:
        connection.recv(1024)
        connection.sendall(answers[0])


def test_an_engine_that_answers_is_found(engine: tuple[str, list[bytes]]) -> None:
    assert engine_answers({"DOCKER_HOST": engine[0]})


def test_an_engine_that_is_ill_is_none(engine: tuple[str, list[bytes]]) -> None:
    engine[1][0] = b"HTTP/1.0 500 Internal Server Error\r\n\r\n"
    assert not engine_answers({"DOCKER_HOST": engine[0]})


@pytest.mark.parametrize(
    "address",
    [
        "unix:///nowhere/docker.sock",
        "tcp://127.0.0.1:1",
        "ssh://somewhere",
        "nonsense",
        "tcp://x:port",
    ],
)
def test_an_engine_that_is_not_there_is_none(address: str) -> None:
    assert not engine_answers({"DOCKER_HOST": address})


def test_the_usual_sockets_are_tried_where_none_is_named() -> None:
    assert list(addresses({"HOME": "/home/me", "XDG_RUNTIME_DIR": "/run/me"})) == [
        "unix:///var/run/docker.sock",
        "unix:///home/me/.docker/run/docker.sock",
        "unix:///run/me/docker.sock",
    ]


def test_without_testcontainers_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container, "testcontainers", None)
    with pytest.raises(ConfigurationError, match=r"trunkline\[containers\]"):
        ContainerBroker()
