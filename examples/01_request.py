"""Request: one service calls another and waits for the reply.

Run it with BUS_URL set to a RabbitMQ and BUS_AUTH=off: python examples/01_request.py
In production the two services are two processes that share the contract.
"""

import asyncio
import time

from bus import Bus, DeadlineExceeded, Message, NotFound, NotServed, Request, Router, contract

SHELVES = {"Emma": "A3", "Ulysses": "J7"}


class Place(Message):
    shelf: str


@contract("library.find", version=1, idempotent=True)
class FindBook(Request[Place]):
    title: str


@contract("library.reserve", version=1)
class ReserveBook(Request[Place]):
    title: str


router = Router("library")


@router.request(FindBook)
async def find(request: FindBook) -> Place:
    if request.title == "War and Peace":
        await asyncio.sleep(60)  # a long search, which the caller's deadline ends
    if request.title not in SHELVES:
        raise NotFound("no such book")  # code and text reach the caller
    return Place(shelf=SHELVES[request.title])


async def main() -> None:
    async with Bus("library") as library, library.serving(router), Bus("reader") as reader:
        place = await reader.request(FindBook(title="Emma"), timeout=5)
        print(f"answer: shelf {place.shelf}")
        try:
            await reader.request(FindBook(title="Emmma"), timeout=5)
        except NotFound as error:
            print(f"{type(error).__name__}: {error}")
        try:
            await reader.request(FindBook(title="War and Peace"), timeout=0.5)
        except DeadlineExceeded:
            print("DeadlineExceeded: half a second is over")
        began = time.perf_counter()
        try:
            await reader.request(ReserveBook(title="Emma"), timeout=5)
        except NotServed:
            print(f"NotServed: no handler for this (at once: {time.perf_counter() - began < 1})")


asyncio.run(main())
