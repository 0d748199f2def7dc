"""The breakers of one process, as the control channel and the commands show them."""

from typing import Annotated

from pydantic import Field

from bus.messaging.breaker_info import MAX_BREAKERS, BreakerInfo, BreakerState
from bus.messaging.service_info import InstanceState

__all__ = ["MAX_BREAKERS", "BreakerInfo", "BreakerState", "InstanceBreakers"]


class InstanceBreakers(InstanceState):
    """The answer to the question for the breakers of an instance."""

    breakers: Annotated[tuple[BreakerInfo, ...], Field(max_length=MAX_BREAKERS)] = ()
