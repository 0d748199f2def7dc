"""Rules for the URLs of the broker: form, parameters, and the heartbeat in `BUS_URL`."""

import re
from collections.abc import Sequence

from pydantic_core import PydanticCustomError

from bus.messaging.broker_addresses import (
    AMQP,
    AddressForm,
    BrokerUrl,
    UrlError,
    parse_urls,
)

__all__ = ["MAX_HEARTBEAT", "MIN_HEARTBEAT", "check_broker_urls", "check_urls", "heartbeat_in"]

MIN_HEARTBEAT, MAX_HEARTBEAT = 1, 300
"""Bounds of the heartbeat, in seconds."""
HEARTBEAT = "heartbeat"
PARAMETERS = (HEARTBEAT, "auth", "happy_eyeballs_delay", "interleave")
"""Parameters that a broker's URL can have. aiormq and aio-pika read all but the heartbeat."""
CERTIFICATES = {
    "cadata": "BUS_CA_FILE",
    "cafile": "BUS_CA_FILE",
    "capath": "BUS_CA_FILE",
    "certfile": "BUS_CLIENT_CERTIFICATE",
    "keyfile": "BUS_CLIENT_KEY",
}
"""Parameters of aiormq for certificates, each with the setting that replaces it.

The bus checks the files of these settings. With the parameters it could wait for a named pipe or a
passphrase. And a file `.env` with a URL would decide which certificates are trusted.
"""
INSTEAD = {
    **{
        name: f"{name} is not allowed in the address. Remove it from the URL, and set {variable}"
        for name, variable in CERTIFICATES.items()
    },
    "no_verify_ssl": (
        "no_verify_ssl is not allowed, because the bus always verifies the certificate. "
        "Remove it from the URL. Set BUS_CA_FILE to use your own certificate authority"
    ),
    "verify": (
        "verify is not allowed, because the bus always verifies the certificate. "
        "Remove it from the URL"
    ),
    "cacertfile": "cacertfile is not known. Remove it from the URL, and set BUS_CA_FILE",
    "connection_timeout": (
        "connection_timeout is not known. Remove it from the URL, and set BUS_CONNECT_TIMEOUT"
    ),
    "timeout": "timeout is not allowed. Remove it from the URL, and set BUS_CONNECT_TIMEOUT",
    "name": "name is not allowed, because the bus names its connections. Remove it from the URL",
}
"""Texts for parameters that clients of other libraries use."""


VALUES = {
    "auth": (re.compile("plain|external", re.IGNORECASE), "plain or external"),
    "happy_eyeballs_delay": (
        re.compile(r"[0-9]{1,3}(\.[0-9]{1,6})?"),
        "a number of seconds, such as 0.25",
    ),
    "interleave": (re.compile("[0-9]"), "a digit"),
}
"""The values that a parameter can have, and their description."""


def check_urls(text: str, form: AddressForm) -> tuple[BrokerUrl, ...]:
    """Return the URLs in a setting.

    Raises:
        PydanticCustomError: A URL is invalid. The error shows no part of the URL but its scheme.
    """
    try:
        return parse_urls(text, form)
    except UrlError as error:
        raise PydanticCustomError("broker_url", "{problem}", {"problem": str(error)}) from None


def check_broker_urls(text: str) -> None:
    """Check the URLs of the broker, and their parameters.

    Raises:
        PydanticCustomError: A URL or a parameter is invalid. The error shows no value.
    """
    urls = check_urls(text, AMQP)
    names = {name for url in urls for name, _ in url.parameters}
    for name in sorted(names & INSTEAD.keys()):
        raise PydanticCustomError("broker_url", "{problem}", {"problem": INSTEAD[name]})
    if not names <= {*PARAMETERS}:
        # The name is not shown, because it can be a part of a password.
        raise PydanticCustomError(
            "broker_url",
            "the address has a parameter that the bus does not know. Remove it from the URL. "
            "Allowed are {allowed}",
            {"allowed": f"{', '.join(PARAMETERS[:-1])} and {PARAMETERS[-1]}"},
        )
    pairs = {pair for url in urls for pair in url.parameters}
    for name, value in sorted(pair for pair in pairs if pair[0] in VALUES):
        pattern, allowed = VALUES[name]
        if not pattern.fullmatch(value):
            raise PydanticCustomError(
                "broker_url",
                "{name} in the address must be {allowed}. Correct it, or remove it from the URL",
                {"name": name, "allowed": allowed},
            )
    beats = _heartbeats(urls)
    if not all(_is_heartbeat(beat) for beat in beats):
        raise PydanticCustomError(
            "broker_url",
            "the heartbeat in the address must be a whole number of seconds from {low} to {high}. "
            "Correct it, or remove it and set BUS_HEARTBEAT",
            {"low": MIN_HEARTBEAT, "high": MAX_HEARTBEAT},
        )
    if len({int(beat) for beat in beats}) > 1 or (beats and len(beats) != len(urls)):
        raise PydanticCustomError(
            "broker_url",
            "each address must have the same heartbeat. Write it once in each, or set "
            "BUS_HEARTBEAT instead",
        )


def heartbeat_in(text: str) -> int | None:
    """Return the heartbeat in the checked URLs of the broker, in seconds, or None."""
    beats = _heartbeats(parse_urls(text))
    return int(beats[0]) if beats else None


def _heartbeats(urls: Sequence[BrokerUrl]) -> list[str]:
    return [value for url in urls for name, value in url.parameters if name == HEARTBEAT]


def _is_heartbeat(text: str) -> bool:
    return (
        re.fullmatch(r"[0-9]{1,3}", text) is not None
        and MIN_HEARTBEAT <= int(text) <= MAX_HEARTBEAT
    )
