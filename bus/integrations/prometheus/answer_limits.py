"""Limits of the answers that one scrape shows, so that a service cannot make a scrape too long."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final, Protocol, TypeVar, runtime_checkable

from bus.messaging.control import Answer
from bus.messaging.service_info import InstanceStats

__all__ = ["MAX_SERIES_OF_SERVICE", "Dropping", "count_dropped", "select_answers"]

MAX_SERIES_OF_SERVICE: Final = 20_000
"""Maximum number of series of all instances of one service."""
TOO_MANY: Final = "too many"
A = TypeVar("A", bound=Answer[InstanceStats])


@runtime_checkable
class Dropping(Protocol):
    """An asker that counts the answers that it drops, for example those with a wrong value."""

    @property
    def dropped(self) -> Mapping[str, int]:
        """Number of dropped answers by the reason, one of a few."""
        ...


def select_answers(answers: Iterable[A]) -> tuple[list[A], int]:
    """Return the answers that the scrape shows, and the number of the others.

    An instance is left out if its service has more than `MAX_SERIES_OF_SERVICE` series with it.
    """
    shown: list[A] = []
    rejected, counts = 0, Counter[str]()
    for answer in answers:
        service, size = answer.record.service, len(answer.record.series)
        if counts[service] + size > MAX_SERIES_OF_SERVICE:
            rejected += 1
            continue
        counts[service] += size
        shown.append(answer)
    return shown, rejected


def count_dropped(asker: object, rejected: int) -> dict[str, int]:
    """Return the number of dropped answers by the reason, with those that a scrape left out."""
    dropped = Counter[str]({"malformed": 0, TOO_MANY: rejected})
    if isinstance(asker, Dropping):
        dropped.update(asker.dropped)
    return dict(dropped)
