from collections.abc import Iterator

import pytest

from tests.properties import as_here
from tests.unit.transports.rabbitmq.streams import StillLoop

as_here()


@pytest.fixture
def still() -> Iterator[StillLoop]:
    loop = StillLoop()
    yield loop
    loop.close()
