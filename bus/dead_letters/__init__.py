"""Dead letters: what each says of its failure, and an operator's hands on them."""

from bus.dead_letters.moving import Purged, Replayed, Replaying, purge, replay
from bus.dead_letters.reading import MOST_LOOKED_AT, Looked, look, look_into
from bus.dead_letters.record import FaultRecord
from bus.dead_letters.selection import EVERYTHING, Letter, Seen, Selection

__all__ = [
    "EVERYTHING",
    "MOST_LOOKED_AT",
    "FaultRecord",
    "Letter",
    "Looked",
    "Purged",
    "Replayed",
    "Replaying",
    "Seen",
    "Selection",
    "look",
    "look_into",
    "purge",
    "replay",
]
