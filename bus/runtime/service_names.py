"""The check that the configured services exist, as far as a process can know it."""

import logging
from collections.abc import Iterable, Mapping

from bus.contracts.contract import CATALOG, Catalog
from bus.errors import ConfigurationError
from bus.messaging.suggestions import did_you_mean
from bus.security.anonymous import AnonymousIdentity
from bus.security.grants import AccessPolicy, Grants
from bus.security.identity import ServiceIdentity
from bus.settings.service_registry import ServiceRegistry, Source

__all__ = [
    "check_configured_services",
    "check_service_names",
    "known_services",
    "unused_services",
]

log = logging.getLogger("bus.client")

DEFAULTS_NAME = "defaults"
INSTEAD_OF_DEFAULTS: Mapping[Source, str] = {
    "code": "service_defaults=ServiceDefaults(…)",
    "variables": "BUS_SERVICE_DEFAULTS__<KEY>",
    "file": "the table [defaults]",
}
"""The place of the values of all services, for a user who has taken `defaults` for a service."""


def check_configured_services(
    registry: ServiceRegistry, service: str, identity: ServiceIdentity | AnonymousIdentity
) -> None:
    """Check the names of the configured services, and log the names that have no effect here.

    Args:
        registry: The configured services.
        service: Name of the process's own service.
        identity: The started identity of the process, which has read the grants.

    Raises:
        ConfigurationError: A name is similar to a known service. The error names the source.
    """
    if not registry:
        return
    grants = identity.grants if isinstance(identity, ServiceIdentity) else None
    known = known_services(service, grants)
    check_service_names(registry, known)
    if unused := unused_services(registry, known):
        log.info(
            "the configuration of %s has no effect in this process, which knows no contract of it",
            ", ".join(unused),
            extra={"services": unused},
        )


def known_services(
    service: str, policy: AccessPolicy | None, catalog: Catalog = CATALOG
) -> frozenset[str]:
    """Return the services that a process knows.

    They are the process's own service, the owners of its contracts, and the services in the grants.
    The grants name a service as a table, or as the owner of a permission.

    Args:
        service: Name of the process's own service.
        policy: The grants, or None.
        catalog: The contracts that the process has imported.
    """
    known = {service, *(contract.service for contract in catalog)}
    if isinstance(policy, Grants):
        known.update(policy.services)
        for grants in policy.services.values():
            permissions = grants.call | grants.publish | grants.consume
            known.update(name.partition(".")[0] for name in permissions if "." in name)
    return frozenset(known)


def check_service_names(registry: ServiceRegistry, known: Iterable[str]) -> None:
    """Check that no configured service is a misspelled one.

    Several services can share their variables. So a name that is similar to no known service is
    valid: it is the name of a service that this process does not call. A name is also valid if the
    similar service has values in the same source, because both are then written on purpose.

    Raises:
        ConfigurationError: A name is similar to a known service. The error names the source.
    """
    names = frozenset(known)
    in_file = {config.name for config in registry if "file" in registry.named_in(config.name)}
    faults = []
    for service in unused_services(registry, names):
        for source, place in registry.named_in(service).items():
            if service == DEFAULTS_NAME:
                faults.append(
                    f"{place}: the service {service!r} is not known here. Write the values of all "
                    f"services in {INSTEAD_OF_DEFAULTS[source]}"
                )
                continue
            # A variable can change a value of the file, so its names are candidates, too.
            candidates = names if source == "file" else names | in_file
            others = [each for each in candidates if source not in registry.named_in(each)]
            if service not in candidates and (meant := did_you_mean(service, others)):
                faults.append(
                    f"{place}: the service {service!r} is not known here{meant} Correct the name. "
                    "If both services exist, configure both in the same place"
                )
    if faults:
        raise ConfigurationError(f"settings: {'; '.join(faults)}.")


def unused_services(registry: ServiceRegistry, known: Iterable[str]) -> list[str]:
    """Return the configured services that the process does not know."""
    return sorted(registry.by_name.keys() - frozenset(known))
