"""The sources of the service registry: code, the environment and the services file."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource
from typing_extensions import override

from bus.settings.service_config import KEYS, ServiceConfig
from bus.settings.service_defaults import ServiceDefaults, set_values_of
from bus.settings.service_file import read_services_file
from bus.settings.service_registry import DEFAULT_REQUEST_TIMEOUT, ServiceRegistry, Source
from bus.settings.service_variables import DEFAULTS, ServiceValues, read_variables
from bus.settings.value_conflicts import find_conflicts

__all__ = ["VALUES", "GivenServices", "VariablesSource", "build_registry"]

VALUES = "service variables"
"""Key of the variables' values among the values of the settings. It is not the name of a field."""
LIST = "services: must be a list of ServiceConfig. Write services=[ServiceConfig('billing')]"
DEFAULTS_CLASS = (
    "service_defaults: must be ServiceDefaults. Write service_defaults=ServiceDefaults(retries=3)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenServices:
    """The values of services from code and from variables, before the file is read."""

    code: Any = ()
    """The argument `services` of the settings."""
    defaults: Any = None
    """The argument `service_defaults` of the settings, or None."""
    variables: ServiceValues | None = None
    """The values of the environment, or None."""


class VariablesSource(PydanticBaseSettingsSource):
    """The source of pydantic-settings for the variables `BUS_SERVICES__…`."""

    def __init__(self, settings_cls: Any, environment: Mapping[str, str]) -> None:
        super().__init__(settings_cls)
        self._environment = environment

    @override
    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False

    @override
    def __call__(self) -> dict[str, Any]:
        """Return the values of the variables under one key."""
        found = read_variables(self._environment)
        return {VALUES: found} if found.values or found.faults else {}


def build_registry(
    given: GivenServices, path: Path | None, request_timeout: float | None
) -> ServiceRegistry:
    """Return the registry. For each value, code wins over a variable, and a variable over the file.

    Args:
        given: The values of code and of variables.
        path: The services file, or None.
        request_timeout: Seconds that a request waits by default. None: the setting is wrong, so no
            value is compared with it.

    Raises:
        ValueError: A source has faults. The text names each one.
    """
    sources = _read_sources(given, path)
    faults = [fault for source in reversed(sources.values()) for fault in source.faults]
    if faults:
        raise ValueError("; ".join(faults))
    values: dict[str, dict[str, Any]] = {}
    origins: dict[tuple[str, str], str] = {}
    setters: dict[tuple[str, str], ServiceValues] = {}
    named_in: dict[str, dict[Source, str]] = {}
    for source, found in sources.items():  # a later source wins
        for service, given_values in found.values.items():
            values.setdefault(service, {}).update(given_values)
            for key in given_values:
                origins.pop((service, key), None)
                setters[service, key] = found
            if service != DEFAULTS:
                named_in.setdefault(service, {})[source] = _place(source, service, found, path)
        origins.update(found.origins)

    def locate(service: str, key: str) -> str:
        return setters[service, key].locate(service, key)

    if request_timeout is not None and (
        conflicts := find_conflicts(values, request_timeout, locate)
    ):
        raise ValueError("; ".join(conflicts))
    defaults = ServiceDefaults(**values.pop(DEFAULTS, {}))
    configs = [ServiceConfig(name, **own) for name, own in values.items()]
    timeout = DEFAULT_REQUEST_TIMEOUT if request_timeout is None else request_timeout
    return ServiceRegistry(configs, origins, named_in, defaults=defaults, request_timeout=timeout)


def _read_sources(given: GivenServices, path: Path | None) -> dict[Source, ServiceValues]:
    """Return the values of all sources. The last source wins."""
    sources: dict[Source, ServiceValues] = {}
    if path is not None:
        sources["file"] = read_services_file(path)
    if given.variables is not None:
        sources["variables"] = given.variables
    sources["code"] = _read_code(given.code)
    if isinstance(given.defaults, ServiceDefaults):
        sources["code"].values[DEFAULTS] = set_values_of(given.defaults)
    elif given.defaults is not None:
        sources["code"].faults.append(DEFAULTS_CLASS)
    return sources


def _place(source: Source, service: str, found: ServiceValues, path: Path | None) -> str:
    """Return the variable, the table or the argument in which a source names a service."""
    if source == "code":
        return f"ServiceConfig({service!r})"
    if source == "file":
        return f"[services.{service}] in {path}"
    return next(name for (named, _), name in found.origins.items() if named == service)


def _read_code(given: Any) -> ServiceValues:
    """Return the values that code has passed. They have no origin."""
    found = ServiceValues(locate=_locate_in_code)
    if not isinstance(given, Iterable) or isinstance(given, str | bytes):
        found.faults.append(LIST)
        return found
    for config in given:
        if not isinstance(config, ServiceConfig):
            found.faults.append(LIST)
            return found
        if config.name in found.values:
            found.faults.append(
                f"services: the list has two entries for {config.name!r}. Write one ServiceConfig "
                "for each service"
            )
        found.values[config.name] = {
            key: getattr(config, key) for key in KEYS if getattr(config, key) is not None
        }
    return found


def _locate_in_code(service: str, key: str) -> str:
    subject = "ServiceDefaults" if service == DEFAULTS else f"ServiceConfig({service!r})"
    return f"{subject}.{key}"
