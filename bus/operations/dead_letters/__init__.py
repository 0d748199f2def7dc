"""Dead letters, and the tools to browse, replay and delete them."""

from bus.messaging.fault_record import FaultRecord
from bus.operations.dead_letters.browse import MAX_BROWSED, BrowseResult, browse, browse_queue
from bus.operations.dead_letters.purge import purge
from bus.operations.dead_letters.replay import ReplayOptions, replay
from bus.operations.dead_letters.reports import PurgeReport, ReplayReport
from bus.operations.dead_letters.selection import EVERYTHING, DeadLetter, ObservedValues, Selection

__all__ = [
    "EVERYTHING",
    "MAX_BROWSED",
    "BrowseResult",
    "DeadLetter",
    "FaultRecord",
    "Letter",
    "ObservedValues",
    "PurgeReport",
    "ReplayOptions",
    "ReplayReport",
    "Selection",
    "browse",
    "browse_queue",
    "purge",
    "replay",
]

Letter = DeadLetter
"""Former name of `DeadLetter`. The next minor version removes this name."""
