from collections.abc import Iterator
from typing import Any

import pytest
from typing_extensions import override

from bus.errors import BusError, Unauthenticated, Unavailable
from bus.operations.brokers.node_login import NodeLogin
from bus.operations.management_api import Management

OWN = {"node": "bus-00000001@localhost", "protocol": "amqp", "port": 20001}
Answer = BusError | dict[str, Any]


class Api(Management):
    """A management API with prepared answers."""

    def __init__(self, *answers: Answer) -> None:
        self._answers: Iterator[Answer] = iter(answers)

    @override
    async def call(self, method: str, path: str, body: object = None) -> Any:
        answer = next(self._answers)
        if isinstance(answer, BusError):
            raise answer
        return answer


def login(*answers: Answer, changes: list[str] | None = None) -> NodeLogin:
    async def change() -> None:
        (changes if changes is not None else []).append("password")

    return NodeLogin(Api(*answers), "bus-00000001@localhost", 20001, change)


async def test_a_node_is_ready_if_it_listens_on_its_own_port() -> None:
    assert await login({"listeners": [{**OWN, "protocol": "clustering"}, OWN]}).done()


@pytest.mark.parametrize(
    "other", [{"node": "bus-00000002@localhost"}, {"port": 20002}, {"protocol": "http"}]
)
async def test_another_broker_on_the_ports_is_not_this_node(other: dict[str, Any]) -> None:
    assert not await login({"listeners": [{**OWN, **other}]}, {"listeners": []}).done()


async def test_a_password_of_an_earlier_run_is_changed_once() -> None:
    changes: list[str] = []
    refused = Unauthenticated("the password is refused")
    attempt = login(refused, refused, {"listeners": [OWN]}, changes=changes)
    assert [await attempt.done() for _ in range(3)] == [False, False, True]
    assert changes == ["password"]


async def test_an_api_that_does_not_answer_yet_is_asked_again() -> None:
    attempt = login(Unavailable("refused"), {"listeners": [OWN]})
    assert [await attempt.done() for _ in range(2)] == [False, True]
