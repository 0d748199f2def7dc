"""Isolation of a test from the settings of the developer's shell.

A test must give the same result in each shell. `bus broker` tells a developer to export variables,
and a worker on the same machine may need other ones.
"""

from collections.abc import Mapping

__all__ = ["shell_settings"]

PREFIX, OWN = "BUS_", "BUS_TEST_"
"""Prefixes of the settings of the bus, and of the variables that configure tests."""


def shell_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that are settings of the bus, and not of its tests.

    A name in other letters, such as `bus_auth`, is also one: the bus refuses to start with it.
    """
    return {
        name: value
        for name, value in environment.items()
        if name.upper().startswith(PREFIX) and not name.startswith(OWN)
    }
