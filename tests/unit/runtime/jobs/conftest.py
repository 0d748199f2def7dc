"""Loggers that are the same after each test as before it."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _unchanged_loggers() -> Iterator[None]:
    """Restore the levels and the handlers of the bus's loggers. Other tests read their records."""
    names = ["bus", *(name for name in logging.root.manager.loggerDict if name.startswith("bus."))]
    before = {name: logging.getLogger(name).level for name in names}
    yield
    for name in [*logging.root.manager.loggerDict]:
        if name == "bus" or name.startswith("bus."):
            log = logging.getLogger(name)
            log.setLevel(before.get(name, logging.NOTSET))
            if log.handlers and name != "bus":
                log.handlers = []
