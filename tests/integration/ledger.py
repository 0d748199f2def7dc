"""A service for the tests of topologies, which compare, create, damage and repair its queues.

The target for `bus topology` is `tests.integration.ledger:router`.
"""

from urllib.parse import quote, unquote, urlsplit

import aio_pika
from pydantic import SecretStr

from bus import Event, Job, Request, RetryPolicy, Router, Settings, contract
from bus.contracts.contract import Catalog
from bus.operations.brokers.broker import Broker
from bus.operations.management_api import Management
from tests.broker import management_url

catalog = Catalog()
WORK, DEAD, TIER, REQUESTS = (
    "books.jobs.close.v1",
    "books.jobs.close.v1.dead",
    "books.retry.1s",
    "books.requests.open.v1",
)


@contract("books.open", version=1, catalog=catalog)
class Open(Request[None]):
    pass


@contract("books.close", version=1, catalog=catalog)
class Close(Job[None]):
    pass


@contract("books.closed", version=1, catalog=catalog)
class Closed(Event):
    pass


router = Router("books")


@router.request(Open)
async def open_(_request: Open) -> None:
    pass


@router.job(Close, retry=RetryPolicy(attempts=3, first_delay=1, factor=1))
async def close(_job: Close) -> None:
    pass


@router.event(Closed, retry=RetryPolicy(attempts=1))
async def on_closed(_event: Closed) -> None:
    pass


class Place:
    """A virtual host with its settings, its management API, and connections for tests."""

    def __init__(self, broker: Broker, url: str) -> None:
        self.url, self.management_url = url, management_url(broker)
        self.settings = Settings(url=SecretStr(url), management_url=SecretStr(self.management_url))
        self.api = Management(self.management_url, url)
        self.vhost = quote(unquote(urlsplit(url).path[1:]), safe="")
        self.environment = {"BUS_URL": url, "BUS_MANAGEMENT_URL": self.management_url}

    async def policy(self, queue: str, definition: dict[str, object]) -> None:
        """Set a policy on one queue."""
        rule = {
            "pattern": f"^{queue}$".replace(".", "\\."),
            "definition": definition,
            "apply-to": "queues",
        }
        await self.api.call("PUT", f"policies/{self.vhost}/spoil", rule)

    async def no_policy(self) -> None:
        """Delete the policy."""
        await self.api.call("DELETE", f"policies/{self.vhost}/spoil")

    async def connect(self) -> aio_pika.abc.AbstractConnection:
        """Open a connection, which the caller closes."""
        return await aio_pika.connect(self.url)
