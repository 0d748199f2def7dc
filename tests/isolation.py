"""Isolation of the tests from the settings of the user's shell.

A test must not create or delete queues on a broker that the shell names.
"""

import os
from collections.abc import MutableMapping

__all__ = ["isolate"]

OWN = "BUS_TEST_"
"""Prefix of the variables that configure the tests themselves."""


def isolate(environment: MutableMapping[str, str]) -> None:
    """Remove the bus's settings, also for the processes that tests start.

    Authentication is off. The tests in tests/security need it, and turn it on in their settings.
    """
    for name in [
        name for name in environment if name.startswith("BUS_") and not name.startswith(OWN)
    ]:
        del environment[name]
    environment["BUS_AUTH"] = "off"
    environment["BUS_ENV_FILE"] = os.devnull  # not the file of the developer's checkout
