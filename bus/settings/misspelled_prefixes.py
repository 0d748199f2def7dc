"""Variables of a service or of the defaults with a misspelled beginning."""

import re
from collections.abc import Mapping
from difflib import SequenceMatcher

from bus.settings.service_config import KEYS
from bus.settings.service_defaults import POLICY_KEYS
from bus.settings.setting_names import nested_prefixes, setting_names
from bus.settings.unknown_keys import is_similar_key

__all__ = ["DEFAULTS_VARIABLE", "VARIABLE", "find_misspelled"]

VARIABLE, DEFAULTS_VARIABLE = "BUS_SERVICES", "BUS_SERVICE_DEFAULTS"
RIGHT = f"{VARIABLE}__", f"{DEFAULTS_VARIABLE}__"
MIN_SIMILARITY = 0.9
"""Minimum similarity of a beginning: `BUS_SERVCES` is misspelled, and `BUS_DEVICES` is not."""
SERVICE_KEYS, DEFAULT_KEYS = (tuple(key.upper() for key in keys) for keys in (KEYS, POLICY_KEYS))
DEFAULTS_FORM = re.compile(r"BUS_(SERVICES?_+)?DEFAULTS?__(?P<key>\w+)", re.ASCII)
"""A variable of the defaults for all services with another beginning."""
FLAT_DEFAULTS_FORM = re.compile(
    rf"BUS_SERVICES?_+DEFAULTS?_(?P<key>{'|'.join(DEFAULT_KEYS)})", re.ASCII
)
FLAT_FORM = re.compile(
    # Without the S, a name with single underscores can be the variable of another program.
    rf"BUS_(SERVICES_+(?P<service>\w+?)_+|SERVICE_+(?P<single>\w+?)__)"
    rf"(?P<key>{'|'.join(SERVICE_KEYS)})",
    re.ASCII,
)
"""A variable of one service with single underscores, or without the S of its beginning."""


def find_misspelled(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the right name for each variable with a misspelled beginning.

    The settings of all loaded classes of pydantic-settings keep their names.

    Args:
        environment: The environment variables.
    """
    found = {
        name: right
        for name in sorted(environment)
        if name.upper().startswith("BUS_") and (right := _right_name(name.upper()))
    }
    if not found:
        return found
    settings, nested = set(setting_names()), tuple(nested_prefixes())
    return {
        name: right
        for name, right in found.items()
        if name.upper() not in settings and not name.upper().startswith(nested)
    }


def _right_name(name: str) -> str | None:
    """Return the name that the user of a variable has meant, or None."""
    if name.startswith(RIGHT):
        return None
    match = FLAT_DEFAULTS_FORM.fullmatch(name) or DEFAULTS_FORM.fullmatch(name)
    if match and is_similar_key(match["key"], DEFAULT_KEYS):
        return f"{DEFAULTS_VARIABLE}__{match['key']}"
    if right := _with_right_beginning(name):
        return right
    if match := FLAT_FORM.fullmatch(name):
        return f"{VARIABLE}__{match['service'] or match['single']}__{match['key']}"
    return None


def _with_right_beginning(name: str) -> str | None:
    """Return the name with the right beginning if its own beginning is similar, or None."""
    beginning, _, rest = name.partition("__")
    service, _, key = rest.rpartition("__")
    if service and _is_similar(beginning, VARIABLE) and is_similar_key(key, SERVICE_KEYS):
        return f"{VARIABLE}__{rest}"
    is_default = _is_similar(beginning, DEFAULTS_VARIABLE) or beginning == "BUS_SERVICE"
    if is_default and not service and is_similar_key(key, DEFAULT_KEYS):
        return f"{DEFAULTS_VARIABLE}__{key}"
    return None


def _is_similar(beginning: str, right: str) -> bool:
    return SequenceMatcher(None, beginning, right).ratio() >= MIN_SIMILARITY
