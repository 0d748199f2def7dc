"""Replacement of dependencies of handlers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bus.runtime.dependencies import provider

__all__ = ["override_dependency", "replaced"]


@contextmanager
def override_dependency(
    dependency: Callable[..., Any], replacement: Callable[..., Any]
) -> Iterator[None]:
    """Replace a dependency of handlers until the `with` block ends.

    Args:
        dependency: Function that handlers pass to `Depends`.
        replacement: Function that is called instead of `dependency`.

    Raises:
        ConfigurationError: fast-depends is not installed.
    """
    with provider().scope(dependency, replacement):
        yield


replaced = override_dependency
"""Former name of `override_dependency`. The next minor version removes it."""
