from collections.abc import Iterator

import pytest

from tests.lane.streams import StillLoop
from tests.properties import as_here

as_here()


@pytest.fixture
def still() -> Iterator[StillLoop]:
    loop = StillLoop()
    yield loop
    loop.close()
