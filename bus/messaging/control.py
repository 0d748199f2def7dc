"""The questions on the control channel, and the routing keys of their targets.

A question is a broadcast: every live instance that its target names answers it. The asker collects
the answers that arrive within a window. Source: Scatter-Gather in Hohpe and Woolf, "Enterprise
Integration Patterns" (2003).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from bus.messaging.chaos_info import InstanceChaos
from bus.messaging.envelope import MAX_TEXT_LENGTH
from bus.messaging.policy_info import InstanceBreakers
from bus.messaging.service_info import (
    InstanceInfo,
    InstanceState,
    InstanceStats,
    RememberedMessages,
)
from bus.messaging.topology.control import question_key

__all__ = [
    "ALL",
    "ANNOUNCEMENT_TYPE",
    "MAX_WINDOW_SECONDS",
    "QUESTIONS",
    "Announcement",
    "Answer",
    "FindMessages",
    "GetBreakers",
    "GetChaos",
    "GetInfo",
    "GetStats",
    "Ping",
    "Question",
    "Target",
]

R_co = TypeVar("R_co", bound=InstanceState, covariant=True)

MAX_WINDOW_SECONDS = 60.0
"""Maximum seconds in which the answers to a question can arrive."""


ANNOUNCEMENT_TYPE = "bus.control.announcement.v1"


@dataclass(frozen=True, slots=True)
class Target:
    """The instances that a question is for: all, those of one service, or one instance."""

    service: str | None = None
    instance: str | None = None
    """Name of one instance. `service` must be set as well."""

    @property
    def routing_key(self) -> str:
        """The routing key on the exchange `bus.control`."""
        return question_key(self.service, self.instance)


ALL: Final = Target()
"""Every live instance of every service."""


class Question(BaseModel, Generic[R_co]):
    """A question to live instances. A subclass has the parameters of the question as fields."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: ClassVar[str]
    """Type on the wire, for example `bus.control.ping.v1`."""
    right: ClassVar[Literal["read", "order", "chaos"]] = "read"
    """Right that the asker needs."""
    answer: ClassVar[type[InstanceState]]
    """Class of the answers."""


class Ping(Question[InstanceState]):
    """PING: which instances are alive?"""

    name = "bus.control.ping.v1"
    answer = InstanceState


class GetInfo(Question[InstanceInfo]):
    """INFO: which contracts does an instance serve, in which versions?"""

    name = "bus.control.info.v1"
    answer = InstanceInfo


class GetStats(Question[InstanceStats]):
    """STATS: how much does an instance do, how fast, and with which errors?"""

    name = "bus.control.stats.v1"
    answer = InstanceStats


class FindMessages(Question[RememberedMessages]):
    """TRACE: which messages with this correlation id does an instance remember?"""

    name = "bus.control.find-messages.v1"
    answer = RememberedMessages

    correlation_id: str = Field(max_length=MAX_TEXT_LENGTH)


class GetBreakers(Question[InstanceBreakers]):
    """BREAKERS: which circuit breakers does an instance have, and in which states?"""

    name = "bus.control.breakers.v1"
    answer = InstanceBreakers


class GetChaos(Question[InstanceChaos]):
    """CHAOS: which chaos experiment runs in an instance?"""

    name = "bus.control.chaos.v1"
    answer = InstanceChaos


QUESTIONS: Final[Mapping[str, type[Question[InstanceState]]]] = {
    question.name: question
    for question in (Ping, GetInfo, GetStats, FindMessages, GetBreakers, GetChaos)
}
"""Every question that this version of the bus can answer, by its type on the wire."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[R_co]):
    """The answer of one instance."""

    record: R_co
    seconds: float
    """Time from the question to the answer."""


class Announcement(InstanceState):
    """A message that an instance sends by itself when it starts to serve and when it stops."""

    event: Literal["started", "stopping"]
