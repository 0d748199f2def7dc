"""The tests see no setting of whoever runs them: a shell that names a broker must not have its queues made and deleted by a test."""

from collections.abc import MutableMapping

__all__ = ["isolate"]

OWN = "BUS_TEST_"
"""How the variables begin that steer the tests themselves."""


def isolate(environment: MutableMapping[str, str]) -> None:
    """Take the bus's settings out, also for the processes that tests start.

    Most tests are not about who sent a message. Those in tests/security are, and say so in their settings.
    """
    for name in [
        each for each in environment if each.startswith("BUS_") and not each.startswith(OWN)
    ]:
        del environment[name]
    environment["BUS_AUTH"] = "off"
