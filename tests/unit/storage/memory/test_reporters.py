"""The reporters of a meter or a history."""

import threading
from collections.abc import Iterator
from weakref import WeakSet

from typing_extensions import override

from bus.messaging.ports.meter import Reporter
from bus.storage.memory.reporters import Reporters


class Counting:
    def __init__(self) -> None:
        self.reports = 0

    def report(self) -> None:
        self.reports += 1


class SlowSet(WeakSet[Reporter]):
    """A set that lets another thread add an object while it is iterated."""

    def __init__(self) -> None:
        super().__init__()
        self.is_read, self.is_changed = threading.Event(), threading.Event()

    @override
    def __iter__(self) -> Iterator[Reporter]:
        for each in super().__iter__():
            self.is_read.set()
            self.is_changed.wait(0.05)
            yield each


def test_an_object_is_added_while_another_thread_reads() -> None:
    reporters, kept, added = Reporters(), Counting(), Counting()
    reporters._objects = slow = SlowSet()
    reporters.add(kept)

    def add() -> None:
        slow.is_read.wait()
        reporters.add(added)
        slow.is_changed.set()

    adding = threading.Thread(target=add)
    adding.start()
    reporters.report()
    adding.join()
    reporters.report()
    assert (kept.reports, added.reports) == (2, 1)


def test_an_object_that_is_not_used_any_more_reports_no_more() -> None:
    reporters, kept, dropped = Reporters(), Counting(), Counting()
    reporters.add(kept)
    reporters.add(dropped)
    reporters.report()
    assert (kept.reports, dropped.reports) == (1, 1)
    del dropped
    assert list(reporters._objects) == [kept]
