"""Picture of the screen of `bus top` while a small system is under load: an SVG file.

usage: BUS_URL=amqp://… BUS_MANAGEMENT_URL=http://… python -m tests.examples.capture_top

No test compares the file, because its rates differ from run to run.
"""

import asyncio
import io
import itertools
import os
import re
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT

from bus import Settings
from bus.cli.output import EscapingConsole
from bus.cli.top.commands import KEYS
from bus.cli.top.queues import QueueReader
from bus.cli.top.screen import TopScreen
from bus.messaging.control import GetStats
from bus.runtime.discovery.live_feed import LiveFeed
from bus.runtime.discovery.live_view import LiveView
from bus.runtime.discovery.open_asker import open_asker
from tests.examples.page import ROOT
from tests.integration.live_system import call, system

__all__ = ["CAPTURE"]

CAPTURE = ROOT / "docs/images/bus-top.svg"
COLUMNS = 100
ROUNDS = 7
"""Rounds of 2 s. The management API counts messages every 5 s."""
CALLERS = 8
FONTS = re.compile(r"@font-face \{\{.*?\}\}\s*", re.DOTALL)
"""Fonts that rich loads from a server. The viewer's own fonts are enough."""
FAMILY = 'ui-monospace, "DejaVu Sans Mono", Menlo, Consolas'


async def capture(url: str) -> str:
    """Return the screen as SVG after some rounds of questions under load."""
    settings = Settings(auth="off")
    view = LiveView()
    async with system(url) as shop, open_asker(settings) as asker:
        feed = LiveFeed(asker, view, GetStats(), interval=2)
        queues = QueueReader(settings, None, view.live)
        screen = TopScreen(view, feed, queues, service=None, sort="rate")
        numbers = itertools.count()

        async def load() -> None:
            while True:
                await call(shop, next(numbers))

        callers = [asyncio.ensure_future(load()) for _ in range(CALLERS)]
        for _ in range(ROUNDS):
            await asyncio.gather(feed.ask(), queues.read(), asyncio.sleep(2))
            screen.update()
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)
    console = EscapingConsole(
        width=COLUMNS,
        record=True,
        force_terminal=True,
        file=io.StringIO(),
        color_system="truecolor",
    )
    console.print(screen.render(console, keys=KEYS))
    console.print()  # rich cuts the lower edge of the last line
    code_format = FONTS.sub("", CONSOLE_SVG_FORMAT).replace("Fira Code", FAMILY.replace('"', "'"))
    return console.export_svg(title="bus top", code_format=code_format)


def main() -> None:
    """Write the picture of the broker of the environment."""
    picture = asyncio.run(capture(os.environ["BUS_URL"]))
    Path(CAPTURE).write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
