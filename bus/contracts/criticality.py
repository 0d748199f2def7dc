"""Criticality of a contract: the order in which an overloaded service rejects requests.

Source: Beyer et al., "Site Reliability Engineering" (2016), chapter 21, "Handling Overload".
"""

from typing import Final, Literal, cast, get_args

__all__ = ["CRITICALITIES", "DEFAULT_CRITICALITY", "Criticality"]

Criticality = Literal["critical_plus", "critical", "sheddable_plus", "sheddable"]
"""Importance of a message. An overloaded handler refuses `sheddable` requests first.

`critical_plus` is for the most important user actions. `critical` is for a user who waits.
`sheddable_plus` is for work that can be repeated in minutes, such as a batch. `sheddable` is for
work that can wait for hours, or fail.
"""
CRITICALITIES: Final = cast("tuple[Criticality, ...]", get_args(Criticality))
"""All criticalities. The most important one is first."""
DEFAULT_CRITICALITY: Final[Criticality] = "critical"
