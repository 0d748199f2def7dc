"""Options that several commands of `bus topology` share, and the values that they select."""

from collections.abc import Sequence
from typing import Annotated

import typer

from bus.cli.loading import load_router
from bus.operations.topology.required import RequiredTopology
from bus.runtime.requirements import check_has_handlers, required_by
from bus.settings import Settings, load_settings

__all__ = [
    "DIFFERENCES_EXIT_CODE",
    "ManagementUrl",
    "Routers",
    "override_settings",
    "require",
]

DIFFERENCES_EXIT_CODE = 2
"""Exit code if the broker's topology differs from the required topology."""

Routers = Annotated[
    list[str],
    typer.Argument(
        metavar="MODULE:ROUTER",
        show_default=False,
        help="For example workers.transcription:router.",
    ),
]
ManagementUrl = Annotated[
    str | None,
    typer.Option(
        "--management-url",
        metavar="URL",
        show_default=False,
        help="URL of the management API. Default: BUS_MANAGEMENT_URL, or the default port of the "
        "broker's host.",
    ),
]


def override_settings(management_url: str | None) -> Settings:
    """Return the settings. If `--management-url` is given, it replaces BUS_MANAGEMENT_URL."""
    return load_settings(management_url=management_url) if management_url else load_settings()


def require(
    targets: Sequence[str], settings: Settings, *, with_handlers: bool = False
) -> RequiredTopology:
    """Return the topology that the named routers require.

    Args:
        targets: Routers as MODULE:ROUTER.
        settings: The settings, on which the topology depends.
        with_handlers: If True, refuse a router without handlers. Such a router is often incomplete,
            because the modules with its handlers are not imported.

    Raises:
        ConfigurationError: A router cannot be imported, or has neither handlers nor a lifespan.
    """
    routers = [load_router(target) for target in targets]
    if with_handlers:
        for router in routers:
            check_has_handlers(router)
    return required_by(routers, settings)
