import asyncio
import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typing_extensions import override

from bus.cli import broker as cli
from bus.errors import Unavailable
from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.installation import Installation
from bus.operations.brokers.kept_node import KeptNode
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


class Interrupted(Ended):
    """Broker that receives Ctrl-C during its start."""

    @override
    async def start(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.Event().wait()


async def test_an_interrupted_start_is_reported_and_is_not_a_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "broker_for", lambda *_: Interrupted())
    choice = BrokerChoice(kind="node", why="it is here")
    with pytest.raises(typer.Exit) as ended:
        await cli.serve(choice, BrokerOptions(), Console(stderr=True), as_json=True)
    assert ended.value.exit_code == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "The start of the broker was interrupted." in captured.err


def test_data_that_was_removed_is_not_called_kept(tmp_path: Path) -> None:
    none = tmp_path / "none"
    installation = Installation(server=none, ctl=none, epmd=none, search_path="")
    node = KeptNode(installation, tmp_path / "kept", BrokerOptions(port=20001))
    node._kept.save(node._state)
    assert cli.describe_data(node) == "and its data is kept."
    shutil.rmtree(tmp_path / "kept")
    assert cli.describe_data(node) == (
        "but its data is lost, because its directory was removed while the broker ran."
    )
    assert cli.describe_data(Ended()) == "and its data is removed."
