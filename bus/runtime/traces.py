"""The recorder of spans of one bus."""

from bus.middleware.spans import Conventions, SpanSource, is_installed
from bus.settings import Settings, semconv_opt_in

__all__ = ["span_source"]


def span_source(settings: Settings, instance: str) -> SpanSource | None:
    """Return the recorder of a bus. Return None with `BUS_TRACES=off`, or without OpenTelemetry.

    Args:
        settings: Settings of the service.
        instance: Name of this process.
    """
    if settings.traces == "off" or not is_installed():
        return None
    return SpanSource(Conventions(instance, semconv_opt_in()))
