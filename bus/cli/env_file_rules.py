"""The rules for the variables that a file `.env` may set. ADR 0027 has the reasons."""

import re
from collections.abc import Mapping

from bus.messaging.variable_values import environment_value, strip_value

__all__ = ["LOGGING", "PREFIX", "PROTECTED", "SECRETS", "VARIABLE", "kind_of"]

VARIABLE = "BUS_ENV_FILE"
PREFIX, TEST_PREFIX = "BUS_", "BUS_TEST_"
PROTECTED = frozenset(
    {
        "BUS_AUTH",
        "BUS_CA_FILE",
        "BUS_CLIENT_CERTIFICATE",
        "BUS_CLIENT_KEY",
        "BUS_CLOCK_LEEWAY",
        "BUS_DEBUG",
        "BUS_ENCRYPTION_KEYS",
        "BUS_GRANTS",
        "BUS_HEALTH_HOST",
        "BUS_JWKS",
        "BUS_KEY",
        "BUS_OPERATOR_KEY",
        "BUS_PASSWORD_FILE",
        "BUS_SERVICES_FILE",
        "BUS_STORE",
        "BUS_STORE_PASSWORD_FILE",
    }
)
"""Variables that decide which peers this process trusts, as which service it acts, or its access.

Only a named file sets them. `BUS_PASSWORD_FILE` is one of them, because its content is sent to the
host of `BUS_URL`, and so is `BUS_STORE_PASSWORD_FILE`. `BUS_CLOCK_LEEWAY` is one, because a
receiver accepts an expired token for this time. `BUS_SERVICES_FILE` is one, because that file has
addresses of services. `BUS_STORE` is one, because workers run the jobs in the store.
"""
BASE_URL = re.compile(r"BUS_SERVICES__.*__BASE_URL", re.DOTALL)
"""Variables with the address of a service. They are protected, too."""
SECRETS = ("BUS_KEY", "BUS_OPERATOR_KEY", "BUS_ENCRYPTION_KEYS")
"""Variables that can have a key or a secret itself, or the path of its file."""
CREDENTIALS: Mapping[str, tuple[str, ...]] = {
    "BUS_URL": ("BUS_PASSWORD_FILE",),
    "BUS_MANAGEMENT_URL": ("BUS_URL", "BUS_PASSWORD_FILE"),
    "BUS_STORE": ("BUS_STORE_PASSWORD_FILE",),
}
"""For each address, the variables with a password that is sent to it.

If the environment sets one of these passwords, no file chooses its receiver.
"""
LOGGING: Mapping[str, frozenset[str]] = {
    "BUS_LOG_LEVEL": frozenset({"debug", "info", "warning"}),
    "BUS_LOG_FORMAT": frozenset({"auto", "json", "console"}),
}
"""Values that a file that was found may set. The other values hide warnings about security."""
NEVER = re.compile(
    # the shell
    r"PATH|HOME|USERPROFILE|SHELL|SHELLOPTS|IFS|ENV|CDPATH|FPATH|ZDOTDIR|PS[0-4]|PROMPT_COMMAND"
    r"|BASH.*|EDITOR|VISUAL|PAGER|BROWSER|TMPDIR|TEMP|TMP|XDG_.*"
    # the loader and the C library
    r"|LD_.*|DYLD_.*|GCONV_PATH|GLIBC_TUNABLES|LOCPATH|NLSPATH|MALLOC_.*|HOSTALIASES|LOCALDOMAIN"
    r"|RES_OPTIONS|RESOLV_.*"
    # interpreters
    r"|PYTHON.*|PERL5?(LIB|OPT|DB)|RUBY(LIB|OPT)|NODE_(OPTIONS|PATH)|(_?JAVA|JDK_JAVA)_.*OPTIONS"
    # certificates of TLS
    r"|SSL.*|OPENSSL.*|(REQUESTS|CURL)_CA_BUNDLE"
    # programs that the bus or a handler may start
    r"|RABBITMQ_(HOME|CONF_ENV_FILE|CONFIG_FILES?|ADVANCED_CONFIG_FILE|PLUGINS_DIR|MNESIA_.*)"
    r"|RABBITMQ_(SERVER|CTL)_.*|ERL_.*|DOCKER_(HOST|CONFIG|CONTEXT|CERT_PATH|TLS.*)"
    r"|TESTCONTAINERS_.*|SSH_.*"
    r"|GIT_(SSH.*|EXEC_PATH|DIR|CONFIG.*|ASKPASS|EDITOR|PAGER|PROXY_COMMAND|TEMPLATE_DIR|TRACE.*)"
    r"|GIT_(EXTERNAL_DIFF|SEQUENCE_EDITOR)"
    # this command line
    r"|_.*|" + VARIABLE
)
"""Variables that choose programs, libraries and their files. No file sets them.

The list cannot be complete, because each program has variables of its own. Therefore a file that
was found sets only variables of the bus.
"""


def kind_of(name: str, value: str, environment: Mapping[str, str], *, is_named: bool) -> str:
    """Return the field of `EnvFile` that has the name.

    Args:
        name: The name of a variable in the file.
        value: Its value in the file.
        environment: The environment of this process.
        is_named: True if `BUS_ENV_FILE` names the file, False if it was found.
    """
    is_own, capitals = name.upper().startswith(PREFIX), name.upper()
    if not is_own and not is_named:
        return "other"
    if NEVER.fullmatch(capitals if is_own else name):
        return "forbidden"
    if environment_value(environment, name) if is_own else name in environment:
        return "overridden"
    if any(environment_value(environment, other) for other in CREDENTIALS.get(capitals, ())):
        return "receivers"
    return "taken" if is_named or _is_harmless(capitals, value) else "refused"


def _is_harmless(name: str, value: str) -> bool:
    """Return True if a file that was found may set this variable to this value."""
    if name in LOGGING:
        return strip_value(value) in LOGGING[name]
    is_protected = name in PROTECTED or BASE_URL.fullmatch(name) is not None
    return not is_protected and not name.startswith(TEST_PREFIX)
