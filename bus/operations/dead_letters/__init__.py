"""Dead letters: what each says of its failure, and an operator's hands on them."""

from bus.messaging.fault_record import FaultRecord
from bus.operations.dead_letters.browse import MOST_LOOKED_AT, Looked, look, look_into
from bus.operations.dead_letters.purge import purge
from bus.operations.dead_letters.replay import Replaying, replay
from bus.operations.dead_letters.reports import Purged, Replayed
from bus.operations.dead_letters.selection import EVERYTHING, Letter, Seen, Selection

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
