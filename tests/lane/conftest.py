from collections.abc import Iterator

import pytest

from tests.lane.streams import StillLoop


@pytest.fixture
def still() -> Iterator[StillLoop]:
    loop = StillLoop()
    yield loop
    loop.close()
