"""The text in which Prometheus reads metrics, in the format that the scraper accepts."""

import re
from collections.abc import Callable
from typing import Final, Literal

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

__all__ = ["CONTENT_TYPES", "Format", "choose_format", "render"]

Format = Literal["text", "openmetrics"]

CONTENT_TYPES: Final[dict[Format, str]] = {
    "text": "text/plain; version=0.0.4; charset=utf-8",
    "openmetrics": "application/openmetrics-text; version=1.0.0; charset=utf-8",
}
WRITERS: Final[dict[Format, Callable[[CollectorRegistry], bytes]]] = {
    "text": generate_latest,
    "openmetrics": openmetrics.generate_latest,
}
MEDIA_TYPES: Final[dict[str, Format]] = {
    "text/plain": "text",
    "application/openmetrics-text": "openmetrics",
}
VERSIONS: Final = {"", "1.0.0", "0.0.1"}
"""Versions of OpenMetrics for which a scraper receives version 1.0.0."""
WEIGHT: Final = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def choose_format(accept: str) -> Format:
    """Return the format that the field `Accept` prefers. Only OpenMetrics has exemplars.

    The text format is returned if the field is empty, or accepts neither format.
    """
    weights: dict[Format, float] = {"text": 0.0, "openmetrics": 0.0}
    for part in accept.split(","):
        media_type, *parameters = (each.strip().lower() for each in part.split(";"))
        values = dict(each.partition("=")[::2] for each in parameters)
        name = MEDIA_TYPES.get(media_type)
        is_known = name != "openmetrics" or values.get("version", "").strip('"') in VERSIONS
        if name is not None and is_known:
            weights[name] = max(weights[name], _weight(values.get("q", "1")))
    is_open = weights["openmetrics"] > 0 and weights["openmetrics"] >= weights["text"]
    return "openmetrics" if is_open else "text"


def _weight(text: str) -> float:
    return float(text) if WEIGHT.fullmatch(text) else 0.0


def render(registry: CollectorRegistry, chosen: Format) -> bytes:
    """Return the metrics of all collectors of a registry."""
    return WRITERS[chosen](registry)
