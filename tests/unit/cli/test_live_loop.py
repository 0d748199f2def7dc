"""The loop of commands that show live instances."""

import asyncio
import os
import sys

import pytest
import typer

from bus.cli.live_loop import show_until_stopped
from bus.errors import PermissionDenied
from bus.messaging.control import Announcement, Ping
from bus.runtime.discovery.live_feed import LiveFeed
from bus.runtime.discovery.live_view import LiveView
from tests.polling import until
from tests.unit.runtime.discovery.fake_asker import FakeAsker
from tests.unit.runtime.discovery.records import stats

BRIEF = 0.01


class Shown:
    """A loop in a task, and the number of states that it has drawn."""

    def __init__(self, asker: FakeAsker, *, redraw: float | None = None) -> None:
        self.drawn = 0
        self.stop = asyncio.Event()
        feed = LiveFeed(asker, LiveView(), Ping(), interval=3600, window=BRIEF)
        self.task = asyncio.ensure_future(
            show_until_stopped(feed, self.draw, self.stop, redraw=redraw)
        )

    def draw(self) -> None:
        self.drawn += 1


async def test_the_event_ends_the_loop() -> None:
    shown = Shown(FakeAsker())
    await until(lambda: shown.drawn, "the first state")
    shown.stop.set()
    await asyncio.wait_for(shown.task, 20)


async def test_the_end_of_the_pipes_reader_ends_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        shown = Shown(FakeAsker())
        await until(lambda: shown.drawn, "the first state")
        os.close(reading)
        with pytest.raises(typer.Exit) as raised:
            await asyncio.wait_for(shown.task, 20)
    assert raised.value.exit_code == 1


async def test_a_burst_of_announcements_is_few_states() -> None:
    asker = FakeAsker()
    shown = Shown(asker)
    await until(lambda: shown.drawn, "the first state")
    for number in range(200):
        event = stats(f"i-{number}").model_dump() | {"event": "started"}
        asker.announced.put_nowait(Announcement.model_validate(event))
    await until(lambda: shown.drawn > 1 and asker.announced.empty(), "the announcements")
    assert shown.drawn < 10
    shown.stop.set()
    await shown.task


async def test_a_screen_is_drawn_again_without_a_change() -> None:
    shown = Shown(FakeAsker(), redraw=BRIEF)
    await until(lambda: shown.drawn >= 3, "three states")
    shown.stop.set()
    await shown.task


async def test_an_asker_without_the_right_ends_the_loop_with_its_error() -> None:
    asker = FakeAsker()
    asker.error = PermissionDenied("no right to ask")
    with pytest.raises(PermissionDenied):
        await Shown(asker).task
