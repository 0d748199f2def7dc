"""AMQP 0-9-1 frames that are hot: publish, ack, and what a publish and a delivery carry. All others are pamqp's.

Numbers and layouts are of the specification's section 4.2, "AMQP Wire-Level Format" (https://www.rabbitmq.com/amqp-0-9-1-protocol).
"""

from struct import Struct

__all__ = [
    "ACK",
    "CANCEL",
    "CLOSED_CHANNEL",
    "CLOSE_CHANNEL",
    "DELIVER",
    "FRAME_END",
    "HEARTBEAT",
    "NACK",
    "RETURN",
    "ack_frame",
    "nack_frame",
    "publish_frames",
    "short_string",
]

# Class and method ids as one 32-bit number.
PUBLISH, DELIVER, RETURN = 0x003C0028, 0x003C003C, 0x003C0032
ACK, NACK, CANCEL = 0x003C0050, 0x003C0078, 0x003C001E
CLOSE_CHANNEL, CLOSED_CHANNEL = 0x00140028, 0x00140029
"""channel.close, and channel.close-ok"""
METHOD, HEADER, BODY = 1, 2, 3
FRAME_END = 0xCE
OVERHEAD = 8
"""Bytes of a frame beside its payload: type, channel, size, and the end."""
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
MANDATORY = b"\x01"
END = b"\xce"

frame_head = Struct(">BHI").pack
header_head = Struct(">BHIHHQ").pack
ack_layout = Struct(">BHIIQBB").pack


def short_string(text: bytes) -> bytes:
    """At most 255 bytes, after their number."""
    return bytes((len(text),)) + text


def publish_method(exchange: str, routing_key: str, *, mandatory: bool) -> bytes:
    """The payload of a basic.publish; the same for all messages of a type, and so worth keeping."""
    address = short_string(exchange.encode()) + short_string(routing_key.encode())
    return b"\x00\x3c\x00\x28\x00\x00" + address + (MANDATORY if mandatory else b"\x00")


def publish_frames(
    channel: int, method: bytes, properties: bytes, body: bytes, frame_max: int
) -> bytes:
    """A whole publish: method, header, and the body in frames of at most `frame_max` bytes."""
    size = len(body)
    start = frame_head(METHOD, channel, len(method)) + method + END
    header = header_head(HEADER, channel, len(properties) + 12, 60, 0, size) + properties + END
    room = frame_max - OVERHEAD
    if size <= room:
        return start + header + (frame_head(BODY, channel, size) + body + END if size else b"")
    parts = [start, header]
    for at in range(0, size, room):
        piece = body[at : at + room]
        parts += (frame_head(BODY, channel, len(piece)), piece, END)
    return b"".join(parts)


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """A basic.ack of one delivery, or of all up to it."""
    return ack_layout(METHOD, channel, 13, ACK, tag, multiple, FRAME_END)


def nack_frame(channel: int, tag: int) -> bytes:
    """A basic.nack of one delivery that asks the broker to deliver it again."""
    return ack_layout(METHOD, channel, 13, NACK, tag, 2, FRAME_END)
