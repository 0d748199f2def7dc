"""Print what the reference application needs in RabbitMQ as definitions, or load such a file into a broker.

usage: python scripts/definitions.py > definitions.json
       BUS_URL=amqp://… python scripts/definitions.py --load definitions.json

The first takes every router that a package in `workers` exports; `bus topology export` does it for any others. The second
makes exchanges, queues and bindings in the virtual host of BUS_URL by the management API (BUS_MANAGEMENT_URL, else port 15672 of
the same host); what exists stays as it is. The workers declare the same by themselves. Loaded before them, the UI shows each
queue from the beginning, and jobs can be submitted before a worker has ever run.
"""

import asyncio
import importlib
import json
import os
import pkgutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from bus.cli.errors import exit_code
from bus.errors import BusError, InvalidArgument, NotFound, Unavailable
from bus.messaging.topology.model import merge
from bus.operations.management_api import Management
from bus.operations.topology.definitions import definitions
from bus.runtime.router import Router
from bus.settings import load_settings

VHOST = "/"
ATTEMPTS = 5  # the API can refuse in its first moments
WAIT = 2.0  # seconds between them


def routers() -> list[Router]:
    """What the packages in `workers` export."""
    import_here()
    packages = pkgutil.iter_modules(importlib.import_module("workers").__path__, "workers.")
    found = (getattr(importlib.import_module(package.name), "router", None) for package in packages)
    return sorted((router for router in found if isinstance(router, Router)), key=lambda router: router.name)


def import_here() -> None:
    """Let `workers` be found where this script lies, or above it."""
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(folder) for folder in (here, here.parent) if (folder / "workers").is_dir()]


async def load(content: dict[str, Any], url: str, management_url: str | None) -> str:
    """Load definitions; what was done, in one line."""
    parts = urlsplit(url)
    vhost = unquote(parts.path[1:]) or VHOST
    management = Management(management_url or f"http://{parts.hostname}:15672", url)
    for left in reversed(range(ATTEMPTS)):
        try:
            await management.call("POST", f"definitions/{quote(vhost, safe='')}", content)
            break
        except Unavailable:
            if not left:
                raise
            await asyncio.sleep(WAIT)
    counts = ", ".join(f"{len(content.get(kind, ()))} {kind}" for kind in ("exchanges", "queues", "bindings"))
    return f"{counts} in the virtual host {vhost!r} on {parts.hostname}"


def read(path: Path) -> dict[str, Any]:
    """The definitions in a file; `NotFound` or `InvalidArgument` where there are none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFound(f"{path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InvalidArgument(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise InvalidArgument(f"{path} holds no definitions")
    return content


def main(arguments: list[str]) -> int:
    """The exit code: as the command line's, see `bus.cli.errors`."""
    match arguments:
        case []:
            everything = merge(topology for router in routers() for _, topology in router.topology().values())
            print(json.dumps(definitions(everything), indent=2))
        case ["--load", path]:
            try:
                url = load_settings().url.get_secret_value()
                print("definitions:", asyncio.run(load(read(Path(path)), url, os.environ.get("BUS_MANAGEMENT_URL"))))
            except BusError as error:
                print(f"definitions: {error}", file=sys.stderr)
                return exit_code(error)
        case _:
            print(__doc__, file=sys.stderr)
            return os.EX_USAGE
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
