"""Print the RabbitMQ definitions of the reference application, or load them into a broker.

usage: python scripts/definitions.py > definitions.json
       BUS_URL=amqp://… python scripts/definitions.py --load definitions.json

The first form prints the topology of every router that a package in `workers` exports. For other
routers, use `bus topology export`. The second form creates exchanges, queues and bindings in the
virtual host of BUS_URL. It uses the management API (BUS_MANAGEMENT_URL, or port 15672 of the same
host). Existing objects stay unchanged.

The workers declare the same objects when they start. If the definitions are loaded before the first
start, the UI already shows all queues, and clients can already submit jobs.
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
from bus.messaging.topology.control import CONTROL_EXCHANGE
from bus.messaging.topology.model import merge
from bus.operations.management_api import Management
from bus.operations.topology.definitions import definitions
from bus.runtime.router import Router
from bus.settings import load_settings

VHOST = "/"
ATTEMPTS = 5  # the API can refuse requests shortly after the broker's start
WAIT = 2.0  # seconds between two attempts
WRITE = "Write it with `python scripts/definitions.py`."


def routers() -> list[Router]:
    """Return the routers that the packages in `workers` export, sorted by name."""
    import_here()
    packages = pkgutil.iter_modules(importlib.import_module("workers").__path__, "workers.")
    found = (getattr(importlib.import_module(package.name), "router", None) for package in packages)
    return sorted(
        (router for router in found if isinstance(router, Router)), key=lambda router: router.name
    )


def import_here() -> None:
    """Put this script's folder and its parent on the import path, if they contain `workers`."""
    here = Path(__file__).resolve().parent
    sys.path[:0] = [str(folder) for folder in (here, here.parent) if (folder / "workers").is_dir()]


async def load(content: dict[str, Any], url: str, management_url: str | None) -> str:
    """Load the definitions into the broker, and return one line about the result."""
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
    counts = ", ".join(
        f"{len(content.get(kind, ()))} {kind}" for kind in ("exchanges", "queues", "bindings")
    )
    return f"{counts} in the virtual host {vhost!r} on {parts.hostname}"


def read(path: Path) -> dict[str, Any]:
    """Return the definitions in a file.

    Raise `NotFound` if the file cannot be read, or `InvalidArgument` if its content is invalid.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}. {WRITE}") from error
    except ValueError as error:
        raise InvalidArgument(f"{path} is not JSON: {error}. {WRITE}") from error
    if not isinstance(content, dict):
        raise InvalidArgument(f"{path} must contain a JSON object with definitions. {WRITE}")
    return content


def main(arguments: list[str]) -> int:
    """Run the script, and return its exit code, which `bus.cli.errors` defines."""
    match arguments:
        case []:
            everything = merge(
                topology for router in routers() for _, topology in router.topology().values()
            )
            print(json.dumps(definitions(everything | CONTROL_EXCHANGE), indent=2))
        case ["--load", path]:
            try:
                settings = load_settings()
                secret = settings.management_url
                management_url = secret.get_secret_value() if secret else None
                url = settings.url.get_secret_value()
                loaded = asyncio.run(load(read(Path(path)), url, management_url))
                print("definitions:", loaded)
            except BusError as error:
                print(f"definitions: {error}", file=sys.stderr)
                return exit_code(error)
        case _:
            print(__doc__, file=sys.stderr)
            return os.EX_USAGE
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
