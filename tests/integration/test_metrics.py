"""`/metrics` of workers on a real broker, while one of their processes is killed."""

import asyncio
import os
import signal
from collections.abc import Callable

from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from bus import Bus, Settings
from bus.operations.brokers.ports import LOOPBACK, free_ports
from bus.operations.http_client import UnreadableReply, fetch
from tests.integration.command import ended, running
from tests.integration.slow_service import WhoAreYou

TARGET = "tests.integration.slow_service:router"
Values = dict[tuple[str, str], float]


class Scraped:
    """The page `/metrics` of a worker."""

    def __init__(self) -> None:
        self.port = free_ports(1)[0]
        self.seen: list[Values] = []

    async def scrape(self) -> Values:
        """Return the values by name and the label that the test reads, or nothing."""
        try:
            reply = await fetch((LOOPBACK, self.port), "/metrics", max_bytes=10_000_000)
        except (OSError, UnreadableReply):
            return {}
        found = {
            (each.name, each.labels.get("state") or each.labels.get("outcome", "")): each.value
            for family in text_string_to_metric_families(reply.content.decode())
            for each in family.samples
        }
        self.seen.append(found)
        return found

    async def until(self, condition: Callable[[Values], bool]) -> Values:
        async with asyncio.timeout(100):
            while True:
                if condition(found := await self.scrape()):
                    return found
                await asyncio.sleep(0.1)


def handled(values: Values) -> float:
    return values.get(("trunkline_messages_handled_total", "ok"), 0)


def answering(values: Values) -> float:
    return values.get(("trunkline_processes", "answering"), 0)


async def test_the_sums_of_several_processes_do_not_decrease_when_one_is_killed(
    vhost_url: str,
) -> None:
    scraped = Scraped()
    async with (
        running(
            *("run", TARGET, "--processes", "2"),
            BUS_URL=vhost_url,
            BUS_HEALTH_PORT=str(scraped.port),
        ) as parent,
        Bus("caller", settings=Settings(url=SecretStr(vhost_url))) as caller,
    ):
        await scraped.until(lambda found: found.get(("trunkline_ready", "")) == 1)
        processes = {(await caller.request(WhoAreYou(), timeout=20)).process for _ in range(40)}
        assert len(processes) == 2
        await scraped.until(lambda found: handled(found) == 40)

        os.kill(min(processes), signal.SIGKILL)
        await scraped.until(lambda found: answering(found) == 1)
        assert scraped.seen[-1]["trunkline_ready", ""] == 0
        await scraped.until(
            lambda found: answering(found) == 2 and found.get(("trunkline_ready", "")) == 1
        )
        for _ in range(10):
            await caller.request(WhoAreYou(), timeout=20)
        await scraped.until(lambda found: handled(found) == 50)

        parent.send_signal(signal.SIGTERM)
        assert (await ended(parent)).code == 0
    counts = [handled(each) for each in scraped.seen]
    assert counts == sorted(counts)
