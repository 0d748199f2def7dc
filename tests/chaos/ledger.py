"""The ledger: comparison of sends and their effects (after the total-queue checker of Jepsen).

Each send is *acked*, *failed* or *unknown*. Each effect is recorded outside of the worker.

A message is *lost* if it is acked, has no effect, and is in no dead-letter queue.
An effect is *unexpected* if its message was never sent, if the send surely failed, or if it has
another message id.
"""

from collections import Counter
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import pairwise

from tests.chaos.journal import ACKED, DELIVERED, EFFECT, FAILED, SENT, UNKNOWN, Entry

__all__ = ["Ledger", "Verdict", "judged"]


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Two journals, and the content of the dead-letter queues."""

    sends: Iterable[Entry]
    work: Iterable[Entry]
    dead: AbstractSet[int] = frozenset()
    """Numbers of the messages in dead-letter queues."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The result of a ledger."""

    messages: int
    acked: int
    failed: int
    unknown: int
    dead: int
    lost: tuple[int, ...]
    unexpected: tuple[int, ...]
    duplicate_deliveries: int
    """Deliveries beyond the first of each attempt at a message."""
    duplicate_effects: int
    """Effects beyond the first of each message."""
    gap: float
    """Longest time between two effects, in seconds."""
    done: frozenset[int] = field(repr=False)
    """Numbers of the messages that had an effect."""


def judged(ledger: Ledger) -> Verdict:
    """Compare the two sides."""
    outcomes: dict[str, set[int]] = {SENT: set(), ACKED: set(), FAILED: set(), UNKNOWN: set()}
    ids: dict[int, str] = {}
    for entry in ledger.sends:
        outcomes[entry.mark].add(entry.number)
        if entry.mark == SENT and entry.detail:
            ids[entry.number] = entry.detail
    deliveries, effects, renamed, times = (
        Counter[tuple[int, str]](),
        Counter[int](),
        set[int](),
        list[float](),
    )
    for entry in ledger.work:
        message_id = entry.detail.partition(" ")[0]
        if entry.mark == DELIVERED:
            deliveries[entry.number, entry.detail] += 1
        elif entry.mark == EFFECT:
            effects[entry.number] += 1
            times.append(entry.at)
        if message_id and ids.get(entry.number, message_id) != message_id:
            renamed.add(entry.number)
    done = set(effects)
    return Verdict(
        messages=len(outcomes[SENT]),
        acked=len(outcomes[ACKED]),
        failed=len(outcomes[FAILED]),
        unknown=len(outcomes[UNKNOWN] | (outcomes[SENT] - outcomes[ACKED] - outcomes[FAILED])),
        dead=len(ledger.dead),
        lost=tuple(sorted(outcomes[ACKED] - done - ledger.dead)),
        unexpected=tuple(sorted((done - outcomes[SENT]) | (done & outcomes[FAILED]) | renamed)),
        duplicate_deliveries=sum(deliveries.values()) - len(deliveries),
        duplicate_effects=sum(effects.values()) - len(effects),
        gap=max((later - earlier for earlier, later in pairwise(sorted(times))), default=0.0),
        done=frozenset(done),
    )
