"""Modules of the page on FastAPI, imported into this process, and a server for them."""

import asyncio
import importlib
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import uvicorn

from bus import Bus
from bus.operations.brokers.ports import free_ports
from bus.testing import MemoryBuses, MemoryTransport
from tests.examples.page import ROOT, blocks
from tests.polling import until

PAGE = ROOT / "docs/how-to/use-from-fastapi.md"
PACKAGES = ("loans", "web")


class Pages:
    """Modules of the page: `pages.web.app` has the attribute `app`."""

    def __getattr__(self, name: str) -> ModuleType:
        """Return the module `web.<name>`, or `loans.<name>`."""
        package = "loans" if name in {"contracts", "service"} else "web"
        return importlib.import_module(f"{package}.{name}")


@contextmanager
def importable(folder: Path) -> Iterator[Pages]:
    """Write the modules of the page to a folder; inside the block they can be imported."""
    for block in blocks(PAGE):
        if block.title.startswith(tuple(f"{each}/" for each in PACKAGES)):
            file = folder / block.title
            file.parent.mkdir(exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        yield Pages()
    finally:
        sys.path.remove(str(folder))
        for name in [name for name in sys.modules if name.split(".")[0] in PACKAGES]:
            del sys.modules[name]


def on_the_model(buses: MemoryBuses) -> Any:
    """Return a replacement of `Bus` that connects to the model broker."""

    def create(service: str, **options: Any) -> Bus:
        return Bus(service, transport=MemoryTransport(buses.broker), **options)

    return create


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[tuple[uvicorn.Server, httpx.AsyncClient]]:
    """Serve an application by uvicorn in this process, and yield the server and a client."""
    [port] = free_ports(1)
    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="on", log_config=None))
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or serving.done(), "the start of uvicorn")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            yield server, client
    finally:
        server.should_exit = True
        await serving
