"""The plugin's fixtures, also if this environment was installed before the plugin existed."""

from bus.testing.plugin import (
    buses,
    dead,
    handle,
    published,
    pytest_generate_tests,
    requested,
    shown_message_values,
    skip_waits,
    submitted,
)

__all__ = [
    "buses",
    "dead",
    "handle",
    "published",
    "pytest_generate_tests",
    "requested",
    "shown_message_values",
    "skip_waits",
    "submitted",
]
