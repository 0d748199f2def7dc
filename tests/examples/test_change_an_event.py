"""Test of the page on changing an event, by the steps of a reader, on a real RabbitMQ."""

from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from bus.operations.brokers.broker import Broker
from bus.operations.management_api import Management
from tests.broker import management_url
from tests.examples.page import ROOT, followed


async def test_the_steps_to_change_an_event_leave_no_queue_of_the_old_version(
    shared_broker: Broker, vhost_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUS_MANAGEMENT_URL", management_url(shared_broker))
    async with followed(ROOT / "docs/how-to/change-an-event.md", tmp_path, vhost_url):
        pass
    api = Management(management_url(shared_broker), shared_broker.url)
    vhost = quote(urlsplit(vhost_url).path.removeprefix("/"), safe="")
    names = {row["name"] for row in await api.call("GET", f"queues/{vhost}?disable_stats=true")}
    assert {name for name in names if ".events." in name} == {
        "stock.events.shop.sold.v2",
        "stock.events.shop.sold.v2.dead",
    }
