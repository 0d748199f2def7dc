"""Values of all panels of the dashboard after some minutes of work, for a picture of it.

usage: python -m tests.integration.monitored_values > values.json
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bus import Bus, BusError, Settings
from bus.operations.brokers.installation import find_installation
from tests.integration.monitored_services import Pack, PriceV1, PriceV2, Sell
from tests.integration.monitored_system import System, running_system
from tests.integration.test_monitoring import DASHBOARD, filled
from tests.isolation import isolate

SECONDS = 180
PAUSE = 0.12


async def work(url: str) -> None:
    """Send requests and jobs, of which some fail, and in the middle all jobs of one kind."""
    settings = Settings(url=SecretStr(url), discovery="off")
    begin = time.monotonic()
    async with Bus("desk", settings=settings) as desk:
        for number in count():
            share = (time.monotonic() - begin) / SECONDS
            if share > 1:
                return
            wave = 6 + abs(number % 120 - 60) // 15
            await asyncio.gather(*(desk.request(PriceV2(title="Emma")) for _ in range(wave)))
            await desk.request(PriceV1(title="Emma"))
            if number % 3 == 0:
                await desk.submit(Sell(title="Emma"))
            if number % 11 == 0:
                with suppress(BusError):
                    await desk.request(PriceV2(title="Torn"))
            if 0.4 < share < 0.65 and number % 4 == 0:
                await desk.submit(Pack(title="Torn"))
            await asyncio.sleep(PAUSE)


def values(system: System, begin: float, end: float) -> Iterator[dict[str, Any]]:
    """Yield each panel with the results of its queries."""
    for panel in DASHBOARD["panels"]:
        data = []
        for target in panel.get("targets", []):
            expr = filled(target["expr"])
            answer = (
                system.prometheus.get("query", query=expr, time=str(end))
                if target["instant"]
                else system.prometheus.get(
                    "query_range", query=expr, start=str(begin), end=str(end), step="1"
                )
            )
            data.append({"legend": target["legendFormat"], "result": answer["result"]})
        yield {"panel": panel, "data": data}


def main() -> int:
    """Print the values as JSON."""
    isolate(os.environ)
    installation = find_installation(os.environ)
    assert installation, "RabbitMQ is not installed. Run scripts/ensure-broker."
    with (
        tempfile.TemporaryDirectory() as folder,
        running_system(installation, Path(folder)) as system,
    ):
        asyncio.run(work(system.url))
        end = time.time()
        begin = end - SECONDS + 15
        panels = [*values(system, begin, end)]
    json.dump({"start": begin, "end": end, "panels": panels}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
