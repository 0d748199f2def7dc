"""The selector that accepts calls of other threads, at the moment in which its loop ends."""

from collections.abc import Iterator

import pytest
from typing_extensions import override

from bus.runtime.background_calls import CallSelector


class EndsEarly(CallSelector):
    """A selector that is closed between the entry of a function and the byte for it."""

    runs_functions: bool

    @override
    def send_byte(self) -> None:
        if self.runs_functions:
            self.select(0)
        self.close()
        super().send_byte()


@pytest.fixture
def selector() -> Iterator[EndsEarly]:
    selector = EndsEarly()
    yield selector
    selector.close()


def test_a_function_that_was_called_before_the_end_is_not_reported_as_refused(
    selector: EndsEarly,
) -> None:
    called: list[str] = []
    selector.runs_functions = True
    selector.add(lambda: called.append("once"))
    assert called == ["once"]


def test_a_function_that_the_end_came_before_is_refused_and_never_called(
    selector: EndsEarly,
) -> None:
    called: list[str] = []
    selector.runs_functions = False
    with pytest.raises(OSError, match=r"Bad file|closed"):
        selector.add(lambda: called.append("never"))
    assert called == []
