"""A client in Python that calls the JavaScript service atelier.mjs. README.md has the commands."""

import asyncio

from bus import Bus, BusError
from examples.node.library import BindBook, EngraveTitle


async def bind(reader: Bus, title: str) -> None:
    job = await reader.submit(BindBook(title=title))
    async for update in job.updates():
        print(f"{title}: progress {update.progress:.0%} {update.note}")
    try:
        result = await job.result(timeout=30)
    except BusError as error:
        print(f"{title}: {error.code}: {error}")
    else:
        print(f"{title}: {result.pages} pages")


async def main() -> None:
    async with Bus("reader") as reader:
        engraving = await reader.request(EngraveTitle(title="Emma"), timeout=5)
        print(f"answer: {engraving.text}")
        try:
            await reader.request(EngraveTitle(title="E" * 30), timeout=5)
        except BusError as error:
            print(f"{error.code}: {error}")
        await bind(reader, "Ulysses")
        await bind(reader, "Sand")


asyncio.run(main())
