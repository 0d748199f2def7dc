"""Checks whether a service could start with the settings. `bus doctor` reports the results."""

from collections.abc import Mapping, Sequence

from bus.cli.doctor_report import Report
from bus.cli.loading import load_router
from bus.contracts.contract import Contract, check_part
from bus.errors import BusError, ConfigurationError, ContractError
from bus.runtime.key_owner import find_key_owners
from bus.runtime.security import security_from_settings
from bus.runtime.service_names import check_configured_services
from bus.settings import Settings

__all__ = ["ServiceContracts", "check_services", "list_missing_settings", "resolve_services"]

ServiceContracts = Mapping[str, Sequence[Contract]]
"""Contracts that each service serves, by the name of the service."""

REQUIRED_SETTINGS: dict[str, tuple[str, ...]] = {
    "on": ("key", "jwks", "grants"),
    "dev": ("key",),
    "off": (),
}
"""Settings that a service requires to start, for each value of `BUS_AUTH`."""
ANY_SERVICE = "any"
"""Name for the check of settings that are the same for all services, and that name none."""


def list_missing_settings(settings: Settings) -> list[str]:
    """Return the variables that a service requires and that are not set."""
    return [
        f"BUS_{name.upper()}"
        for name in REQUIRED_SETTINGS[settings.auth]
        if getattr(settings, name) is None
    ]


def resolve_services(targets: Sequence[str]) -> ServiceContracts:
    """Return the services that a user named, with the contracts that their routers serve.

    Args:
        targets: Names of services, or routers as MODULE:ROUTER.

    Raises:
        ConfigurationError: A router cannot be imported.
        ContractError: A name is not the name of a service.
    """
    return dict(map(_service_of, targets))


async def check_services(settings: Settings, services: ServiceContracts, report: Report) -> None:
    """Read the keys and grants of each service as at its start. Add the results to the report.

    Args:
        settings: The settings, in which no required setting is missing.
        services: Services to check. If it is empty, the services to which `BUS_KEY` belongs are
            checked.
        report: Report that gets the services and the problems.
    """
    try:
        services = services or await _default_services(settings)
    except BusError as error:
        report.record_problem(error)
        return
    for service, contracts in services.items():
        can_start = True
        try:
            await _check_start(service, contracts, settings)
        except BusError as error:
            report.record_problem(error)
            can_start = False
        if service != ANY_SERVICE:
            report.services[service] = can_start


def _service_of(target: str) -> tuple[str, Sequence[Contract]]:
    """Return the name of a service, and the contracts that its router serves."""
    if ":" in target:
        router = load_router(target)
        return router.name, router.contracts
    try:
        check_part(target, "service")
    except ContractError as error:
        raise ContractError(f"{error}, or pass MODULE:ROUTER.") from None
    return target, ()


async def _default_services(settings: Settings) -> ServiceContracts:
    if settings.auth != "on":
        return {ANY_SERVICE: ()}
    owners = await find_key_owners(settings)
    if not owners:
        raise ConfigurationError(
            "BUS_KEY names a directory without the key of a service. "
            "Create one with `bus keys new SERVICE --directory DIR`."
        )
    return dict.fromkeys(owners, ())


async def _check_start(service: str, contracts: Sequence[Contract], settings: Settings) -> None:
    """Raise the error with which the service would end at its start, if there is one."""
    identity = security_from_settings(service, settings).identity
    try:
        await identity.start()
        check_configured_services(settings.registry, service, identity)
        identity.check_signing_key()
        identity.check_subscriptions(contracts)
    finally:
        await identity.close()
