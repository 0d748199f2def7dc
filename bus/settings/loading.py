"""Reading of the settings, with one error for all wrong variables."""

from importlib import import_module
from typing import Any

from pydantic import ValidationError

from bus.errors import ConfigurationError
from bus.messaging.body_limit import HIGHEST_MAX_BODY_BYTES, LOWEST_MAX_BODY_BYTES
from bus.settings.service import Settings

__all__ = ["load_settings"]

REFUSALS = frozenset(
    {
        *("boolean", "broker_url", "chaos_plan", "chaos_with_auth", "debug_with_auth"),
        *("padded_secret", "store_url", "url_heartbeat"),
    }
)
"""Rules of `Settings` that have a text of their own."""
SERVICES = "services"
"""Rule of `Settings` with a text that names the variable, the file or the argument itself."""
REMEDIES = {
    "password_file": (
        "the file cannot be used. Name a readable file that is not world-writable, with the "
        "password or token on one line"
    ),
    "store_password_file": (
        "the file cannot be used. Name a readable file that is not world-writable, with the "
        "password on one line"
    ),
    "ca_file": (
        "the file cannot be used. Name a readable file with certificates as PEM that is not "
        "world-writable"
    ),
    "client_key": (
        "certificate and key cannot be used. Set BUS_CLIENT_CERTIFICATE to a readable certificate "
        "as PEM. Set BUS_CLIENT_KEY to its private key, without a passphrase, if the key is in "
        "another file. No file may be world-writable"
    ),
    "max_message": (
        f"the number of bytes is not valid. Write a number from {LOWEST_MAX_BODY_BYTES} to "
        f"{HIGHEST_MAX_BODY_BYTES}, or a text such as 32MiB"
    ),
}
"""Mapping from a field's name to the error message for a wrong value.

The error message never shows the value, because a value can contain a password.
"""

FIELDS = {"url_heartbeat": "heartbeat"}
"""Mapping from a rule about several fields to the name of the field that its error names."""


def load_settings(**overrides: object) -> Settings:
    """Return the settings of this process.

    Args:
        **overrides: Values by field name. They replace the values of the environment.

    Raises:
        ConfigurationError: A value is invalid. The error names all variables that are wrong.
            It never shows a value, except the scheme of a URL.
    """
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates all values
    except ValidationError as error:
        text = "; ".join(map(_describe_violation, error.errors()))
        raise ConfigurationError(f"settings: {text}") from None


def _describe_violation(detail: Any) -> str:
    """Return the name of a variable and the rule that its value violates."""
    kind = detail["type"]
    if kind == SERVICES:
        return str(detail["msg"])
    name = "_".join(map(str, detail["loc"])) or FIELDS[kind]
    if kind == "value_error":
        rule = REMEDIES.get(name, detail["msg"])
    elif kind in REFUSALS:
        rule = detail["msg"]
    else:
        # Only invalid settings need this module, which takes milliseconds to import.
        texts = import_module("bus.contracts.violations")
        rule = texts.describe_violation(Settings.__pydantic_core_schema__, detail)
    return f"BUS_{name.upper()}: {rule}"
