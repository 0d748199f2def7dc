"""Commands that start each peer's processes."""

import sys

from benchmarks.environments import installed
from tests.chaos.scene import Party

__all__ = ["PEERS", "peer"]

PEERS = {"aio-pika": "aio_pika_peer", "FastStream": "faststream_peer", "Celery": "celery_peer"}
CELERY = ("celery>=5.7,<6",)


def peer(name: str) -> Party:
    """Return a peer by its name.

    Raises:
        Absent: The peer cannot be installed.
    """
    python = installed("celery-default", CELERY) if name == "Celery" else sys.executable
    module = f"tests.chaos.peers.{PEERS[name]}"
    return Party(
        name=name,
        worker=lambda journal, service: [python, "-m", module, "work", str(journal)],
        sender=lambda journal, order: [
            python,
            "-m",
            module,
            "send",
            str(journal),
            order.model_dump_json(),
        ],
        order={"failing": 0, "hopeless": 0, "seconds": 0.005},
        confirms=name != "Celery",
        stops=False,
    )
