"""The payload and the result of a job, for an operator with the right to see them."""

import base64
import json
from collections.abc import Iterator
from typing import Any

from bus.cli.output import format_json, say
from bus.errors import BusError
from bus.messaging.envelope import Envelope
from bus.messaging.jobs.records import JobRecord
from bus.runtime.security import cipher_from_settings
from bus.security.encryption import ENCRYPTION
from bus.settings import Settings

__all__ = ["payload_lines", "payloads_to_json"]


def payload_lines(job: JobRecord, settings: Settings, *, reveal: bool) -> Iterator[str]:
    """Yield the texts about payload and result of a job.

    Args:
        job: The job.
        settings: The settings, with the keys of encrypted contracts.
        reveal: False to yield only the sizes.
    """
    for name, envelope in (("payload", job.envelope), ("result", job.result)):
        if envelope is None:
            yield f"{name}  {_absence(name, job)}"
            continue
        hidden = "" if reveal else ", hidden; use --reveal to show it"
        yield f"{name}  {len(envelope.body)} bytes{hidden}"
        if reveal:
            yield _as_text(_decrypted(name, envelope, settings).body)


def _absence(name: str, job: JobRecord) -> str:
    if job.is_pruned:
        return "removed, because its retention is over"
    return "none yet" if name == "result" and not job.has_ended else "none"


def payloads_to_json(job: JobRecord, settings: Settings) -> dict[str, Any]:
    """Return payload and result in base64, or null."""
    return {
        name: None
        if envelope is None
        else base64.b64encode(_decrypted(name, envelope, settings).body).decode()
        for name, envelope in (("body", job.envelope), ("result", job.result))
    }


def _decrypted(name: str, envelope: Envelope, settings: Settings) -> Envelope:
    """Return the envelope decrypted. If that fails, print the reason, and return it unchanged."""
    if ENCRYPTION not in envelope.headers:
        return envelope
    try:
        return cipher_from_settings(settings).decrypt(envelope)
    except BusError as error:
        say(f"the {name} is shown encrypted: {error}")
        return envelope


def _as_text(body: bytes) -> str:
    """Return JSON indented. Return any other body as a Python bytes literal."""
    try:
        return format_json(json.loads(body), indent=2)
    except (ValueError, RecursionError):
        return repr(body)
