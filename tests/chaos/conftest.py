"""The node that campaigns share in each process of pytest; it runs again after each fault."""

import asyncio
import os
from collections.abc import Iterator

import pytest

from bus.operations.brokers.installation import find_installation
from bus.operations.brokers.select import INSTALL
from tests.chaos.node import ChaosNode


@pytest.fixture(scope="session")
def chaos_node() -> Iterator[ChaosNode]:
    installation = find_installation(os.environ)
    assert installation, INSTALL
    node = ChaosNode(installation)
    asyncio.run(node.start())
    yield node
    asyncio.run(node.stop())
