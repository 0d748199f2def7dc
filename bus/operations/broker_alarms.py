"""Alarms of the broker: too little memory or disk space. They block every publish."""

from bus.errors import Unauthenticated, Unavailable
from bus.operations.management_api import Management

__all__ = ["describe_alarms"]

ALARMS = {
    "mem_alarm": "memory alarm. Free memory, or raise vm_memory_high_watermark",
    "disk_free_alarm": "disk alarm. Free disk space, or lower disk_free_limit",
}
"""Fields of a node in the management API, each with the alarm and the remedy."""


async def describe_alarms(management: Management) -> list[str]:
    """Return a line for each alarm of each node.

    The list is empty if the management API does not answer, or refuses to show the nodes. RabbitMQ
    shows them to users with the tag `monitoring` or `administrator`.
    """
    try:
        nodes = await management.read_list("nodes", {"name": str})
    except (Unauthenticated, Unavailable):
        return []
    return [
        f"the broker accepts no publishes, because the node {node['name']} has a {text}."
        for node in nodes
        for field, text in ALARMS.items()
        if node.get(field)  # RabbitMQ lists a stopped node without this field
    ]
