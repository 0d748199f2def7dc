"""The ledger: what was sent, beside what came of it (after the total-queue checker of Jepsen).

Each send is *acked*, *failed* or *unknown*. Each effect is written down outside of the worker. Then

lost         acked, with no effect, and in no dead-letter queue
unexpected   an effect of what was never sent, of another message id than was sent, or of a send that surely failed
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
    """Two journals and what lies in the dead-letter queues."""

    sends: Iterable[Entry]
    work: Iterable[Entry]
    dead: AbstractSet[int] = frozenset()
    """Numbers of the messages in dead-letter queues."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a ledger says."""

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
    """Seconds of the longest time without an effect, while there was something to do."""
    done: frozenset[int] = field(repr=False)
    """The messages that had an effect."""


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
