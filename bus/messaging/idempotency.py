"""The idempotency key: one text for one message at one handler, whatever other senders send."""

import hashlib
import re

from bus.messaging.envelope import Envelope

__all__ = ["idempotency_key"]

VERSION = re.compile(r"\.v\d+(?=(\.[^.]+)?\Z)")
"""Pattern of the version in the name of a work queue, before the name of a subscription."""
ANY_VERSION = ".v*"
"""Text that replaces the version. Names of contracts and subscriptions cannot contain `*`."""


def idempotency_key(envelope: Envelope) -> str:
    """Return the SHA-256 digest of a message's handler, sender and id, in hexadecimal.

    The digest has 64 characters, and is safe for every collation of a database. Redeliveries,
    retries and replays of one message have the same digest.

    The handler is the work queue without its version. So two subscriptions of one event have two
    keys, and copies of one event in several versions have one key. The sender is part of the key,
    because ids of messages are not secret: later messages carry them as `causation-id`.

    The hashed text consists of three netstrings (<https://cr.yp.to/proto/netstrings.txt>). The
    lengths separate the parts, so no sender can move characters from one part to another.
    """
    handler = VERSION.sub(ANY_VERSION, envelope.queue or "", count=1)
    parts = (handler, envelope.source, envelope.id)
    return hashlib.sha256(b"".join(map(_netstring, parts))).hexdigest()


def _netstring(text: str) -> bytes:
    data = text.encode(errors="surrogatepass")
    return b"%d:%b," % (len(data), data)
