import asyncio
import gc
import sys
import tracemalloc
from contextvars import ContextVar

from bus.messaging.envelope import Envelope
from bus.messaging.ports.reply_store import ReplyKey
from bus.storage.memory.reply_store import ENTRY_BYTES, MemoryReplyStore
from tests.unit.fakes import envelope, virtual

RIGHTS = frozenset({"read:books"})


def key(number: int) -> ReplyKey:
    return ReplyKey("ledger.total.v1", number.to_bytes(32), "office", RIGHTS, ())


def reply(size: int = 10) -> Envelope:
    return envelope("ledger.total.v1.reply", role="reply", body=b"x" * size)


@virtual
async def test_a_reply_is_kept_for_its_seconds_and_then_leaves_the_memory() -> None:
    store, kept = MemoryReplyStore(), reply()
    store.add(key(1), kept, 5)
    await asyncio.sleep(4.9)
    assert store.find(key(1)) is kept
    assert store.find(key(2)) is None
    await asyncio.sleep(0.2)
    assert (len(store), store.bytes) == (0, 0)
    assert store.find(key(1)) is None


@virtual
async def test_a_kept_reply_keeps_nothing_of_the_context_of_its_caller() -> None:
    handled: ContextVar[Envelope | None] = ContextVar("handled", default=None)
    message = envelope("ledger.print.v1")
    count = sys.getrefcount(message)
    store = MemoryReplyStore()
    token = handled.set(message)
    store.add(key(1), reply(), 60)
    handled.reset(token)
    assert sys.getrefcount(message) == count
    await asyncio.sleep(61)
    assert len(store) == 0


@virtual
async def test_a_reply_is_not_found_after_its_time_although_its_timer_is_late() -> None:
    store = MemoryReplyStore()
    store.add(key(1), reply(), 0)
    assert store.find(key(1)) is None
    assert len(store) == 0


@virtual
async def test_a_new_reply_replaces_the_old_one_and_its_time() -> None:
    store, new = MemoryReplyStore(), reply(20)
    store.add(key(1), reply(), 5)
    store.add(key(1), new, 50)
    await asyncio.sleep(10)
    assert store.find(key(1)) is new
    assert store.bytes == 20 + ENTRY_BYTES


@virtual
async def test_the_reply_that_was_not_read_for_the_longest_time_leaves_first() -> None:
    store = MemoryReplyStore(max_entries=2)
    store.add(key(1), reply(), 60)
    store.add(key(2), reply(), 60)
    assert store.find(key(1)) is not None
    store.add(key(3), reply(), 60)
    assert [store.find(key(number)) is not None for number in (1, 2, 3)] == [True, False, True]


@virtual
async def test_the_bytes_of_all_replies_are_limited() -> None:
    store = MemoryReplyStore(max_bytes=3 * (ENTRY_BYTES + 100))
    for number in range(10):
        store.add(key(number), reply(100), 60)
    assert len(store) == 3
    store.add(key(11), reply(ENTRY_BYTES + 200), 60)
    assert [store.find(key(number)) is not None for number in (8, 9, 11)] == [False, True, True]
    store.add(key(12), reply(10 * ENTRY_BYTES), 60)
    assert store.find(key(12)) is None
    assert store.find(key(11)) is not None


@virtual
async def test_a_store_for_no_replies_keeps_none() -> None:
    store = MemoryReplyStore(max_entries=0)
    store.add(key(1), reply(), 60)
    assert len(store) == 0


@virtual
async def test_a_cleared_store_has_neither_replies_nor_timers() -> None:
    store = MemoryReplyStore()
    store.add(key(1), reply(), 60)
    store.clear()
    assert (len(store), store.bytes) == (0, 0)
    await asyncio.sleep(0)
    assert all(timer.cancelled() for timer in vars(asyncio.get_running_loop())["_scheduled"])


@virtual
async def test_a_reply_takes_about_the_estimated_memory() -> None:
    store = MemoryReplyStore()
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1000):
            kept = Envelope(
                id=f"id {number}",
                type=f"type {number}",
                role="reply",
                source=f"service {number}",
                body=bytes(1000),
            )
            store.add(key(number), kept, 60)
        used = tracemalloc.get_traced_memory()[0] / 1000
    finally:
        tracemalloc.stop()
    assert used <= 1000 + ENTRY_BYTES
    assert used > 1000 + ENTRY_BYTES / 3
