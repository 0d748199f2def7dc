"""Names of environment variables that look like settings of the bus, and are not."""

import re
from collections.abc import Mapping

from bus.contracts.similar_names import similar_names
from bus.settings.misspelled_prefixes import find_misspelled
from bus.settings.service_config import KEYS
from bus.settings.service_variables import DEFAULTS_PREFIX
from bus.settings.service_variables import PREFIX as SERVICE_PREFIX
from bus.settings.setting_names import nested_prefixes, setting_names

__all__ = ["OTHER_VARIABLES", "describe_unknown_variables"]

PREFIX = "BUS_"
OTHER_VARIABLES = frozenset(
    {
        "BUS_CONTRACTS",
        "BUS_ENV_FILE",
        "BUS_TEST_BROKER",
        "BUS_TEST_IMAGE",
        "BUS_TEST_MANAGEMENT_URL",
        "BUS_TEST_URL",
    }
)
"""Variables of the command line and of tests that are not fields of `Settings`."""
CUTOFF = 0.5
"""Minimum similarity of a suggestion: `PORT` is as similar to `HEALTH_PORT`."""
MAX_DESCRIBED = 10
"""Maximum number of variables that are described, so that a warning stays readable."""
MAX_CHARACTERS = 60
"""Maximum length of a name in a description."""
IGNORED = "is not a setting of the bus, so the bus ignores it"
FLAT = re.compile(rf"BUS_SERVICE_(?P<service>\w+?)_(?P<key>{'|'.join(KEYS).upper()})", re.ASCII)
"""A variable of one service with single underscores and without the S of its beginning.

It can also be the variable of another program, so the settings do not refuse it.
"""
KUBERNETES = re.compile(
    r"BUS_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
"""Variables that Kubernetes sets in each pod for a Service of the name `bus` or `bus-…`."""
KUBERNETES_PORT = re.compile(r"BUS_(\w+_)?PORT"), re.compile(r"(tcp|udp|sctp)://.*")
"""Name and value of one more such variable. The name alone can be a misspelled setting."""


def describe_unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable that looks like a setting of the bus, and is not.

    The settings themselves refuse a variable of a service with a misspelled beginning.

    The settings of all loaded classes of pydantic-settings are known, so call this function after
    the imports of the service.

    Args:
        environment: The environment variables.
    """
    known = {*OTHER_VARIABLES, *setting_names()}
    bare = {name.removeprefix(PREFIX) for name in known if name.startswith(PREFIX)}
    delimited = (SERVICE_PREFIX, DEFAULTS_PREFIX, *nested_prefixes())
    refused = find_misspelled(environment)
    unknown = [
        name
        for name, value in sorted(environment.items())
        if name.upper().startswith(PREFIX)
        and name.upper() not in known
        and name not in refused
        and not name.startswith(delimited)
        and not _is_from_kubernetes(name, value)
    ]
    described = [_describe(name, bare) for name in unknown[:MAX_DESCRIBED]]
    more = len(unknown) - MAX_DESCRIBED
    if more > 0:
        verb = "variable is not a setting" if more == 1 else "variables are not settings"
        described.append(f"{more} more {verb} of the bus")
    return described


def _describe(name: str, bare: set[str]) -> str:
    # `BUS_SERVICE_BILLING_TIMEOUT` is similar to no name of a setting.
    if flat := FLAT.fullmatch(name.upper()):
        meant = f"{SERVICE_PREFIX}{flat['service']}__{flat['key']}"
        return f"{_shown(name)} {IGNORED}; did you mean {_shown(meant)}?"
    # Without the prefix, which would make all names similar.
    found = similar_names(name.upper().removeprefix(PREFIX), bare, cutoff=CUTOFF)
    similar = [f"{PREFIX}{suffix}" for suffix in found]
    question = f"; did you mean {' or '.join(similar)}?" if similar else ""
    return f"{_shown(name)} {IGNORED}{question}"


def _shown(name: str) -> str:
    return ascii(name[:MAX_CHARACTERS])[1:-1] + "…" * (len(name) > MAX_CHARACTERS)


def _is_from_kubernetes(name: str, value: str) -> bool:
    port, link = KUBERNETES_PORT
    return bool(KUBERNETES.fullmatch(name) or (port.fullmatch(name) and link.fullmatch(value)))
