"""The check of the durable store by `bus doctor`."""

from collections.abc import Collection

from bus.cli.doctor_report import Report
from bus.errors import BusError, ConfigurationError
from bus.messaging.jobs.store_report import StoreReport
from bus.messaging.store_address import MEMORY
from bus.settings import Settings
from bus.settings.store_settings import SERVICE
from bus.storage.configured_store import store_administration

__all__ = ["examine_stores"]

NONE = "memory: jobs are not stored"


async def examine_stores(settings: Settings, services: Collection[str], report: Report) -> None:
    """Check the store in the settings, and add the result to the report.

    Args:
        settings: Settings of a service.
        services: Names of the checked services.
        report: Report of the doctor.
    """
    text = settings.store.get_secret_value()
    if text == MEMORY:
        report.stores = {"store": NONE}
        return
    if SERVICE not in text:
        await _examine(settings, next(iter(services), None) if len(services) == 1 else None, report)
        return
    for service in services:
        await _examine(settings, service, report)
    if not services:
        report.stores = {"store": "not checked: name a service, as in `bus doctor SERVICE`"}


async def _examine(settings: Settings, service: str | None, report: Report) -> None:
    name = f"store of {service}" if service else "store"
    try:
        store = store_administration(settings, service)
    except BusError as error:
        report.stores[name] = "cannot be used"
        report.record_problem(error)
        return
    try:
        found = await store.check()
    finally:
        await store.close()
    report.stores[name] = _describe(found)
    for problem in found.problems:
        report.record_problem(ConfigurationError(problem))


def _describe(found: StoreReport) -> str:
    identity = found.identity
    if found.problems:
        return f"{identity.place}: cannot be used"
    owner = f"of {identity.service}" if identity.service else "without an owner yet"
    return f"{identity.place} {owner}, revision {identity.revision}, id {identity.id}"
