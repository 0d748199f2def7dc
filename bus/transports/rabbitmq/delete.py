"""Functions that delete a queue or an exchange only if no client uses it."""

from aiormq.channel import Channel
from aiormq.exceptions import ChannelPreconditionFailed

from bus.errors import DataLoss
from bus.transports.rabbitmq.open_connection import RPC_TIMEOUT_SECONDS
from bus.transports.rabbitmq.queue_depth import depth_by

__all__ = ["delete_idle", "delete_unbound"]


async def delete_idle(
    channel: Channel, queue: str, *, is_quorum: bool, if_empty: bool = True
) -> bool:
    """Delete a queue only if it has no consumers and no ready messages.

    A classic queue checks both conditions itself. A quorum queue cannot check them
    (https://github.com/rabbitmq/rabbitmq-server/issues/10543). So this function checks them just
    before the deletion. The two calls take some milliseconds.

    Args:
        channel: A channel for this call only. If the queue is used, the broker can close it.
        queue: The queue's name. A queue that does not exist counts as deleted.
        is_quorum: True for a quorum queue, False for a classic queue.
        if_empty: If False, delete a queue that has ready messages, too.

    Returns:
        False if the queue has consumers or messages, and was not deleted.

    Raises:
        DataLoss: A message was published to the quorum queue after the check. It was deleted.
    """
    if not is_quorum:
        return await _delete_classic(channel, queue, if_empty=if_empty)
    depth = await depth_by(channel, queue)
    if depth.missing:
        return True
    if depth.consumers or (depth.ready and if_empty):
        return False
    deleted = await channel.queue_delete(queue, timeout=RPC_TIMEOUT_SECONDS)
    if deleted.message_count and if_empty:
        raise DataLoss(
            f"queue {queue} received {deleted.message_count} messages in the moment of its "
            "deletion, and they were deleted with it. Check which program still uses the queue."
        )
    return True


async def _delete_classic(channel: Channel, queue: str, *, if_empty: bool) -> bool:
    try:
        await channel.queue_delete(
            queue, if_unused=True, if_empty=if_empty, timeout=RPC_TIMEOUT_SECONDS
        )
    except ChannelPreconditionFailed:
        return False
    return True


async def delete_unbound(channel: Channel, exchange: str) -> bool:
    """Delete an exchange only if no queue or exchange is bound to it.

    Args:
        channel: A channel for this call only. If the exchange is used, the broker closes it.
        exchange: The exchange's name. An exchange that does not exist counts as deleted.

    Returns:
        False if something is bound to the exchange, so that it was not deleted.
    """
    try:
        await channel.exchange_delete(exchange, if_unused=True, timeout=RPC_TIMEOUT_SECONDS)
    except ChannelPreconditionFailed:
        return False
    return True
