from collections.abc import Iterator

import pytest

from bus.testing.plugin import buses, pytest_generate_tests, skip_waits
from tests.unit.spans.recorded import Recorded, recording

__all__ = ["buses", "pytest_generate_tests", "recorded", "skip_waits"]


@pytest.fixture
def recorded() -> Iterator[Recorded]:
    with recording() as found:
        yield found
