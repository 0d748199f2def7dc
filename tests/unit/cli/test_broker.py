import json
from dataclasses import dataclass

import pytest
from rich.console import Console

from bus.cli import broker as cli
from bus.errors import Unavailable
from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.select import BrokerChoice


@dataclass
class Ended:
    """Broker that ends by itself as soon as it has started."""

    url: str = "amqp://bus:secret@127.0.0.1:20001/"
    management_url: str | None = "http://127.0.0.1:20002"
    running: bool = False

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    def describe(self) -> str:
        return "a broker"


@pytest.mark.parametrize("as_json", [True, False])
async def test_where_it_is_can_be_read_by_programs_and_by_people(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    monkeypatch.setattr(cli, "broker_for", lambda *_: Ended())
    with pytest.raises(Unavailable, match="a broker has stopped unexpectedly"):
        await cli.serve(
            BrokerChoice(kind="node", why="it is here"),
            BrokerOptions(),
            Console(stderr=as_json),
            as_json=as_json,
        )
    out = capsys.readouterr().out
    if as_json:
        assert json.loads(out) == {
            "broker": "node",
            "url": Ended.url,
            "management_url": Ended.management_url,
        }
    else:
        assert f"export BUS_URL={Ended.url} BUS_MANAGEMENT_URL={Ended.management_url}" in out
