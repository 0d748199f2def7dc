"""A virtual host with one broker user for each service, with the rights from the grants.

The host has the topology that the services' routers need.
"""

import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import SecretStr

from bus import Bus, Router, Settings
from bus.contracts.contract import Contract
from bus.operations.brokers.broker import Broker
from bus.operations.management_api import Management
from bus.operations.topology.definitions import definitions
from bus.operations.topology.permissions import (
    ADMINISTRATOR,
    broker_users,
    check_consume_grants,
    permissions,
    users,
)
from bus.runtime.requirements import required_by
from bus.security.grants import Grants
from tests.broker import management_url


class Place:
    """A virtual host with imported definitions, and the address of each user."""

    def __init__(self, broker: Broker, url: str, services: Iterable[str]) -> None:
        self.api = Management(management_url(broker), broker.url)
        self.url, self.vhost = url, urlsplit(url).path[1:]
        self.passwords = {name: secrets.token_hex(8) for name in (ADMINISTRATOR, *services)}

    def address(self, user: str) -> str:
        parts = urlsplit(self.url)
        return urlunsplit(
            parts._replace(
                netloc=f"{user}:{self.passwords[user]}@{parts.netloc.rpartition('@')[2]}"
            )
        )

    def settings(self, service: str, **others: object) -> Settings:
        url = SecretStr(self.address(service))
        # pydantic validates the other settings.
        return Settings(url=url, topology="verify", **others)  # type: ignore[arg-type]

    def bus(self, service: str, **others: object) -> Bus:
        return Bus(service, settings=self.settings(service, **others))


@asynccontextmanager
async def place_for(
    broker: Broker,
    url: str,
    routers: Sequence[Router],
    grants: Grants,
    contracts: Sequence[Contract],
) -> AsyncIterator[Place]:
    """Create the users and the topology, and delete the users at the end of the block."""
    for router in routers:
        check_consume_grants(router.name, router.contracts, grants)
    found = broker_users(grants, contracts, [router.name for router in routers])
    place = Place(broker, url, [each.name for each in found])
    needed = required_by(routers, Settings(topology="verify")).topology
    access = {"users": users(found, place.passwords), **permissions(found, vhost=place.vhost)}
    await place.api.call(
        "POST", "definitions", {**definitions(needed, vhost=place.vhost), **access}
    )
    try:
        yield place
    finally:
        for user in place.passwords:
            await place.api.call("DELETE", f"users/{quote(user)}")
