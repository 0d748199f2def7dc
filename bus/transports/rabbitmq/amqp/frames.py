"""Encoders and numeric ids for frequent AMQP 0-9-1 frames, such as publish, ack and nack.

pamqp encodes and decodes all other frames.
The ids and layouts are from section 4.2 of the specification, "AMQP Wire-Level Format"
(https://www.rabbitmq.com/amqp-0-9-1-protocol).
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
    "dead_letter_frame",
    "nack_frame",
    "publish_frames",
    "reject_frame",
    "short_string",
]

# A method id combines the class number and the method number in one 32-bit number.
PUBLISH, DELIVER, RETURN = 0x003C0028, 0x003C003C, 0x003C0032
ACK, NACK, CANCEL = 0x003C0050, 0x003C0078, 0x003C001E
REJECT = 0x003C005A
CLOSE_CHANNEL, CLOSED_CHANNEL = 0x00140028, 0x00140029
"""Ids of `channel.close` and `channel.close-ok`."""
METHOD, HEADER, BODY = 1, 2, 3
FRAME_END = 0xCE
OVERHEAD = 8
"""Bytes of a frame without its payload: type, channel, size and end."""
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"
MANDATORY = b"\x01"
END = b"\xce"

frame_head = Struct(">BHI").pack
header_head = Struct(">BHIHHQ").pack
ack_layout = Struct(">BHIIQBB").pack


def short_string(text: bytes) -> bytes:
    """Encode a short string: its length in one byte, then at most 255 bytes of text."""
    return bytes((len(text),)) + text


def publish_method(exchange: str, routing_key: str, *, mandatory: bool) -> bytes:
    """Encode the arguments of a `basic.publish` method frame.

    All publishes with the same arguments have the same bytes.
    """
    address = short_string(exchange.encode()) + short_string(routing_key.encode())
    return b"\x00\x3c\x00\x28\x00\x00" + address + (MANDATORY if mandatory else b"\x00")


def publish_frames(
    channel: int, method: bytes, properties: bytes, body: bytes, frame_max: int
) -> bytes:
    """Encode a publish as a method frame, a header frame and body frames.

    Each body frame has at most `frame_max` bytes.
    """
    size = len(body)
    start = frame_head(METHOD, channel, len(method)) + method + END
    header = header_head(HEADER, channel, len(properties) + 12, 60, 0, size) + properties + END
    max_payload = frame_max - OVERHEAD
    if size <= max_payload:
        return start + header + (frame_head(BODY, channel, size) + body + END if size else b"")
    parts = [start, header]
    for offset in range(0, size, max_payload):
        chunk = body[offset : offset + max_payload]
        parts += (frame_head(BODY, channel, len(chunk)), chunk, END)
    return b"".join(parts)


def ack_frame(channel: int, tag: int, *, multiple: bool) -> bytes:
    """Encode a `basic.ack` of one delivery. If `multiple`, ack all deliveries up to `tag`."""
    return ack_layout(METHOD, channel, 13, ACK, tag, multiple, FRAME_END)


def nack_frame(channel: int, tag: int) -> bytes:
    """Encode a `basic.nack` that requeues one delivery."""
    return ack_layout(METHOD, channel, 13, NACK, tag, 2, FRAME_END)


def reject_frame(channel: int, tag: int) -> bytes:
    """Encode a `basic.reject` that requeues one delivery."""
    return ack_layout(METHOD, channel, 13, REJECT, tag, 1, FRAME_END)


def dead_letter_frame(channel: int, tag: int) -> bytes:
    """Encode a `basic.reject` after which the broker dead-letters one delivery, or drops it."""
    return ack_layout(METHOD, channel, 13, REJECT, tag, 0, FRAME_END)
