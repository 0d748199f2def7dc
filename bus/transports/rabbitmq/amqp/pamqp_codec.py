"""Conversion between an `AmqpMessage` and pamqp's properties."""

from datetime import UTC, datetime
from typing import Any

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from bus.transports.wire_format import AmqpMessage

__all__ = ["from_message", "from_properties", "to_properties", "user_id_of"]


def to_properties(wire: AmqpMessage, *, user: str | None = None) -> Basic.Properties:
    """Return the AMQP properties of an outgoing message.

    Args:
        wire: Message in wire format 1.
        user: User name of the connection, see `user_id_of`.
    """
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
    """Return the property `user_id` of a message, or None if it must not be set.

    The broker refuses a message if its `user_id` is not the user of the connection.
    So the property is set only if the user and the sending service have the same name.
    A copy of another service's message has no `user_id`.

    Args:
        source: Name of the service that sent the message.
        user: User name of the connection.
    """
    return user if user == source else None


def from_message(message: DeliveredMessage) -> AmqpMessage:
    """Convert a delivery. Any client can send one, so the types of properties are not trusted."""
    return from_properties(message.header.properties, message.body)


def from_properties(properties: Basic.Properties, body: bytes) -> AmqpMessage:
    """Convert pamqp's properties and a body to an `AmqpMessage`."""
    return AmqpMessage(
        body=body,
        headers=properties.headers or {},
        message_id=_text_or_none(properties.message_id),
        type=_text_or_none(properties.message_type),
        app_id=_text_or_none(properties.app_id),
        content_type=_text_or_none(properties.content_type),
        timestamp=_to_seconds(properties.timestamp),
        delivery_mode=properties.delivery_mode or 1,
        reply_to=_text_or_none(properties.reply_to),
        correlation_id=_text_or_none(properties.correlation_id),
        expiration=_text_or_none(properties.expiration),
    )


def _text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _to_seconds(moment: Any) -> int:
    return int(moment.timestamp()) if isinstance(moment, datetime) else 0
