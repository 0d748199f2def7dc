"""A program with a `SyncBus` for tests: it forks, or ends while calls are in flight.

usage: python -m tests.integration.synchronous_caller MODE

It prints one line for each step that a test checks.
"""

import contextlib
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bus import BusError, FailedPrecondition, SyncBus
from tests.integration.held_service import Begun, Echo, Hold, Sold

bus = SyncBus("synchronous")
"""The bus of this process, as an application has it: one object at the level of a module."""


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def echo() -> bool:
    return bus.request(Echo(pid=os.getpid()), timeout=60).pid == os.getpid()


def held() -> threading.Thread:
    """Start a daemon thread with a call in flight."""

    def call() -> None:
        try:
            found: object = bus.request(Hold(pid=os.getpid()), timeout=60).pid == os.getpid()
        except BusError as error:
            found = type(error).__name__
        say("held", found)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    bus.submit(Begun(pid=os.getpid()), timeout=60).result(timeout=60)
    return thread


def sockets() -> set[str]:
    found = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(each.readlink()))
    return {each for each in found if each.startswith(("socket:", "anon_inode:[eventpoll]"))}


def in_child(job: object) -> None:
    """Use the bus in a forked process."""
    say("child has", *sockets())
    try:
        job.result(timeout=1)  # type: ignore[attr-defined]
    except FailedPrecondition as error:
        say("child", str(error).partition(")")[2])
    say("child", echo(), echo())
    with ThreadPoolExecutor(4) as pool:
        say("child threads", *pool.map(lambda _: echo(), range(4)))


def fork() -> None:
    """Fork with a call in flight, and let the child exit as any program does."""
    say("parent", echo())
    job = bus.submit(Begun(pid=os.getpid()), timeout=60)
    thread = held()
    child = os.fork()
    if child == 0:
        in_child(job)
        sys.exit(0)
    say("code", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    say("parent", echo())
    bus.publish(Sold(pid=0), timeout=60)
    thread.join(60)


def forks() -> None:
    """Fork again and again while threads call."""
    stop = threading.Event()
    counts = [0, 0, 0, 0]

    def call(number: int) -> None:
        while not stop.is_set():
            counts[number] += echo()

    threads = [threading.Thread(target=call, args=(each,)) for each in range(4)]
    for each in threads:
        each.start()
    codes = []
    for _ in range(5):
        child = os.fork()
        if child == 0:
            os._exit(0 if echo() else 1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    for each in threads:
        each.join()
    say("codes", *codes, all(counts))


def work(_: int) -> bool:
    return echo()


def pools() -> None:
    """Call in processes of `multiprocessing`, with each way to start them."""
    say("parent", echo())
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(1) as pool:
            say(method, *pool.map(work, range(2)))
            pool.close()
            pool.join()
    say("parent", echo())


def daemon() -> None:
    held()


def thread() -> None:
    """End the main thread, and let another thread call after that."""

    def call() -> None:
        threading.main_thread().join()
        say("after main", echo())

    say("main", echo())
    threading.Thread(target=call).start()


def executor() -> None:
    """End the main thread with calls in the queue of a pool, which the interpreter joins."""
    say("main", echo())
    pool = ThreadPoolExecutor(1)
    pool.map(lambda _: echo(), range(30))
    pool.submit(lambda: say("after main", echo()))


def leave() -> None:
    held()
    sys.exit(3)


def fail() -> None:
    held()
    raise LookupError("the program fails")


def wait() -> None:
    held()
    say("waiting")
    time.sleep(60)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
