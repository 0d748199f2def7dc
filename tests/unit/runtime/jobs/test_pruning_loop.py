"""The background task that prunes the store."""

import asyncio
import logging

import pytest
from typing_extensions import override

from bus.errors import Unavailable
from bus.messaging.jobs.pruning import PruneReport, Retention
from bus.messaging.jobs.retention import COPIES_SECONDS
from bus.runtime.jobs.pruning_loop import PruningLoop, retention_of
from bus.settings import Settings
from bus.storage.memory.store import MemoryStore
from tests.polling import until

SETTINGS = Settings(auth="off", retain_succeeded=60, retain_failed=600, message_ttl=3600)


class CountedStore(MemoryStore):
    """A store that counts its prunings, and fails at first."""

    def __init__(self, errors: list[Exception]) -> None:
        super().__init__()
        self.errors, self.calls = errors, list[tuple[Retention, float]]()

    @override
    async def prune(self, retention: Retention, *, every: float = 0) -> PruneReport | None:
        self.calls.append((retention, every))
        if self.errors:
            raise self.errors.pop()
        return PruneReport(payloads=3, jobs=2, inbox=1)


async def test_a_store_is_pruned_again_and_again_although_a_pruning_fails(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = CountedStore([KeyError("secret"), Unavailable("secret")])
    loop = PruningLoop(store, SETTINGS, "shelf", seconds=0.01)
    with caplog.at_level(logging.DEBUG, "bus.store"):
        loop.start()
        await until(lambda: len(store.calls) > 3, "four prunings")
        await loop.close()
    retention, every = store.calls[0]
    assert every == 0.01
    assert retention == Retention(succeeded=60, failed=600, inbox=3600 + COPIES_SECONDS)
    assert "the store of shelf: removed 3 payloads, 2 jobs and 1 handled messages" in caplog.text
    assert "the store of shelf was not pruned: unavailable" in caplog.text
    assert "secret" not in caplog.text


def test_the_inbox_remembers_while_a_copy_can_be_alive_unless_a_setting_differs() -> None:
    assert retention_of(SETTINGS).inbox == 3600 + COPIES_SECONDS
    assert retention_of(Settings(auth="off", inbox_retention=7200)).inbox == 7200


async def test_a_closed_loop_prunes_no_more_and_can_be_closed_again() -> None:
    store = CountedStore([])
    loop = PruningLoop(store, SETTINGS, "shelf", seconds=60)
    await loop.close()
    loop.start()
    await loop.close()
    await loop.close()
    assert store.calls == []
    assert not [each for each in asyncio.all_tasks() if each.get_name() == "store pruning"]


async def test_of_several_instances_one_prunes_within_an_interval() -> None:
    now = 1000.0
    store = MemoryStore(clock=lambda: now)
    retention = Retention(succeeded=1, failed=1, inbox=1)
    assert await store.prune(retention, every=300) is not None
    now = 1299.0
    assert await store.prune(retention, every=300) is None
    assert await store.prune(retention) is not None
    now = 1601.0
    assert await store.prune(retention, every=300) is not None
