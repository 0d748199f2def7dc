"""Spans: OpenTelemetry's record of each message that is sent or handled.

This module does not import OpenTelemetry. `recording.py` does, and it is loaded only after the
application has set a tracer provider. So a service without OpenTelemetry does not pay for it.
"""

import logging
import sys
from collections.abc import Awaitable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from bus.messaging.envelope import Envelope
from bus.messaging.handler import Handler, Middleware
from bus.messaging.jobs.questions import is_question
from bus.messaging.resends import on_resend
from bus.middleware.spans.conventions import Conventions, HandledBy

if TYPE_CHECKING:
    from bus.middleware.spans.active_span import ActiveSpan
    from bus.middleware.spans.recording import Recorder

__all__ = [
    "Conventions",
    "HandledBy",
    "SpanSource",
    "active_ids",
    "client_spans",
    "is_installed",
    "load",
]

log = logging.getLogger("bus.spans")

API = "opentelemetry.trace"
PROVIDER = "_TRACER_PROVIDER"
"""Variable of OpenTelemetry with the global tracer provider. None: the application has set none."""


def is_installed() -> bool:
    """Return True if the package `opentelemetry-api` is installed. Do not import it."""
    try:
        return API in sys.modules or find_spec(API) is not None
    except (ImportError, ValueError):  # another package has the name `opentelemetry`
        return False


def load() -> None:
    """Load the module that records spans, if the application has loaded OpenTelemetry.

    A `SyncBus` calls this function before its thread starts. If a process were forked while that
    thread imports a module, the import lock would never be released in the child.
    """
    if API in sys.modules:
        import_module("bus.middleware.spans.recording")


class SpanSource:
    """The recorder of one bus. It exists after the application has set a tracer provider."""

    __slots__ = ("_api", "_is_broken", "_recorder", "conventions")

    def __init__(self, conventions: Conventions) -> None:
        self.conventions = conventions
        self._recorder: Recorder | None = None
        self._api: dict[str, Any] = {}
        self._is_broken = False

    def recorder(self) -> "Recorder | None":
        """Return the recorder, or None if the application has set no tracer provider yet."""
        # A comparison of OpenTelemetry's variable takes a tenth of the time of its function. If the
        # variable has another name in a later version, the function is called for each message.
        if (
            self._recorder is None
            and API in sys.modules
            and self._api.get(PROVIDER, API) is not None
            and not self._is_broken
        ):
            self._look()
        return self._recorder

    def _look(self) -> None:
        try:
            recording = import_module("bus.middleware.spans.recording")
            self._recorder = recording.find_recorder(self.conventions)
            self._api = vars(sys.modules[API])
        except Exception as error:  # noqa: BLE001 - a fault of the installation fails no message
            self._is_broken = True
            log.warning(
                "OpenTelemetry cannot be used (%s: %s), so messages have no span. Install "
                "trunkline[otel], and check the tracer provider",
                type(error).__name__,
                error,
            )


def client_spans(source: SpanSource) -> Middleware:
    """Record a span for each message that is sent. It covers all attempts of the policy `retry`.

    A request has a span of the kind CLIENT, which ends with its reply. An event or job has a span
    of the kind PRODUCER, which ends with the broker's confirm. The message carries the context of
    its span. A question of a job handle has no span, because a handle that waits asks again and
    again.

    Args:
        source: The recorder of the bus.
    """

    def layer(inner: Handler) -> Handler:
        def call(envelope: Envelope) -> Awaitable[Envelope | None]:
            recorder = source.recorder()
            if recorder is None or is_question(envelope.type):
                return inner(envelope)
            span, sent = recorder.start_sending(envelope)
            return inner(sent) if span is None else _record(span, sent, inner)

        return call

    return layer


async def _record(span: "ActiveSpan", envelope: Envelope, inner: Handler) -> Envelope | None:
    span.begin()
    token = on_resend.set(span.add_resend)
    try:
        reply = await inner(envelope)
    except BaseException as error:
        span.fail(error)
        raise
    else:
        span.succeed()
        return reply
    finally:
        on_resend.reset(token)
        span.end()


def active_ids() -> tuple[str, str] | None:
    """Return the trace id and the span id of the active span in hex, or None without a span."""
    if API not in sys.modules:
        return None
    ids: tuple[str, str] | None = import_module("bus.middleware.spans.recording").active_ids()
    return ids
