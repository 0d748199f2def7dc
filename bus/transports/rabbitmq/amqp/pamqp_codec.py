"""A `Wire` as pamqp's properties, and back."""

from datetime import UTC, datetime
from typing import Any

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from bus.transports.wire_format import AmqpMessage

__all__ = ["from_message", "from_properties", "to_properties", "user_id_of"]


def to_properties(wire: AmqpMessage, *, user: str | None = None) -> Basic.Properties:
    """The AMQP properties of an outgoing message. `user`: the connection's, see `user_id_of`."""
    return Basic.Properties(
        content_type=wire.content_type,
        headers=dict(wire.headers),
        delivery_mode=wire.delivery_mode,
        correlation_id=wire.correlation_id,
        reply_to=wire.reply_to,
        expiration=wire.expiration,
        message_id=wire.message_id,
        timestamp=datetime.fromtimestamp(wire.timestamp, UTC),
        message_type=wire.type,
        user_id=user_id_of(wire.app_id, user),
        app_id=wire.app_id,
    )


def user_id_of(source: str | None, user: str | None) -> str | None:
    """The `user_id` of a message of `source` on a connection of `user`: the broker refuses any other than the connection's own.

    So it is set where each service has a user of its name. A copy of what another service sent has none.
    """
    return user if user == source else None


def from_message(message: DeliveredMessage) -> AmqpMessage:
    """What was delivered, whoever sent it: nothing in it is taken to be of the right type."""
    return from_properties(message.header.properties, message.body)


def from_properties(properties: Basic.Properties, body: bytes) -> AmqpMessage:
    """What these properties say of `body`."""
    return AmqpMessage(
        body=body,
        headers=properties.headers or {},
        message_id=_text(properties.message_id),
        type=_text(properties.message_type),
        app_id=_text(properties.app_id),
        content_type=_text(properties.content_type),
        timestamp=_seconds(properties.timestamp),
        delivery_mode=properties.delivery_mode or 1,
        reply_to=_text(properties.reply_to),
        correlation_id=_text(properties.correlation_id),
        expiration=_text(properties.expiration),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(moment: Any) -> int:
    return int(moment.timestamp()) if isinstance(moment, datetime) else 0
