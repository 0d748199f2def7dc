"""The base of the records that instances exchange on the control channel, with their limits.

Any service with a key can send a record. So each value has limits, and a record with a value beyond
them is invalid. The limits are far above the values of a real instance.
"""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "MAX_AMOUNT",
    "MAX_COUNT",
    "MAX_LABELS",
    "MAX_LABEL_SETS",
    "MAX_MILLISECONDS",
    "MAX_NAME_LENGTH",
    "MAX_SECONDS",
    "MAX_TEXT_LENGTH",
    "Amount",
    "Count",
    "Milliseconds",
    "Name",
    "Record",
    "Seconds",
    "Text",
]

MAX_LABEL_SETS: Final = 500
"""Maximum number of label sets of an instrument in one process. Further ones share one series."""
MAX_NAME_LENGTH: Final = 255
"""Maximum number of characters of a name. AMQP limits most names to as many bytes."""
MAX_TEXT_LENGTH: Final = 10_000
MAX_LABELS: Final = 32
MAX_COUNT: Final = 2**53
"""Maximum count. A float has each whole number up to it."""
MAX_AMOUNT: Final = 1e18
MAX_MILLISECONDS: Final = 32_503_680_000_000
"""Begin of the year 3000, in milliseconds since the epoch. Functions for dates accept it."""
MAX_SECONDS: Final = 4e9
"""Maximum duration. A meter cuts a longer one, because a sender chooses the time of a message."""

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Amount = Annotated[float, Field(ge=0, le=MAX_AMOUNT, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False)]
Milliseconds = Annotated[int, Field(ge=0, le=MAX_MILLISECONDS)]
"""Time in milliseconds since the epoch."""
Name = Annotated[str, Field(max_length=MAX_NAME_LENGTH, pattern=r"^\P{Cc}*$")]
"""Text that an instance chooses. It has no control characters."""
Text = Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]
"""Text that can come from another sender, with any characters.

An instance must report the message with this text. So the reader escapes the characters.
"""


class Record(BaseModel):
    """A part of an answer on the control channel."""

    # A sum or a rate of an infinite number would fail in the command that asks.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)
