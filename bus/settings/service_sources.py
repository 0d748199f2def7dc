"""The sources of the service registry: code, the environment and the services file."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource
from typing_extensions import override

from bus.settings.service_config import KEYS, ServiceConfig
from bus.settings.service_file import read_services_file
from bus.settings.service_registry import ServiceRegistry, Source
from bus.settings.service_variables import ServiceValues, read_variables

__all__ = ["VALUES", "VariablesSource", "build_registry"]

VALUES = "service variables"
"""Key of the variables' values among the values of the settings. It is not the name of a field."""
LIST = "services: must be a list of ServiceConfig. Write services=[ServiceConfig('billing')]"


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
    code: Any, variables: ServiceValues | None, path: Path | None
) -> ServiceRegistry:
    """Return the registry. For each value, code wins over a variable, and a variable over the file.

    Args:
        code: The argument `services` of the settings.
        variables: The values of the environment, or None.
        path: The services file, or None.

    Raises:
        ValueError: A source has faults. The text names each one.
    """
    sources: dict[Source, ServiceValues] = {}
    if path is not None:
        sources["file"] = read_services_file(path)
    if variables is not None:
        sources["variables"] = variables
    sources["code"] = _read_code(code)
    faults = [fault for source in reversed(sources.values()) for fault in source.faults]
    if faults:
        raise ValueError("; ".join(faults))
    values: dict[str, dict[str, Any]] = {}
    origins: dict[tuple[str, str], str] = {}
    named_in: dict[str, dict[Source, str]] = {}
    for source, found in sources.items():  # a later source wins
        for service, given in found.values.items():
            values.setdefault(service, {}).update(given)
            for key in given:
                origins.pop((service, key), None)
            named_in.setdefault(service, {})[source] = _place(source, service, found, path)
        origins.update(found.origins)
    configs = [ServiceConfig(name, **given) for name, given in values.items()]
    return ServiceRegistry(configs, origins, named_in)


def _place(source: Source, service: str, found: ServiceValues, path: Path | None) -> str:
    """Return the variable, the table or the argument in which a source names a service."""
    if source == "code":
        return f"ServiceConfig({service!r})"
    if source == "file":
        return f"[services.{service}] in {path}"
    return next(name for (named, _), name in found.origins.items() if named == service)


def _read_code(given: Any) -> ServiceValues:
    """Return the values that code has passed. They have no origin."""
    found = ServiceValues()
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
