"""The settings with the registry of the services that a process calls."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, PlainValidator, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import SettingsConfigDict
from typing_extensions import override

from bus.settings.environment import EnvironmentSettings
from bus.settings.service_config import ServiceConfig
from bus.settings.service_registry import ServiceRegistry
from bus.settings.service_sources import VALUES, VariablesSource, build_registry
from bus.settings.service_variables import VARIABLE, ServiceValues

__all__ = ["CallSettings"]


@dataclass(frozen=True, slots=True)
class _GivenServices:
    """The values of `services` in code and in variables, before the file is read."""

    code: Any
    variables: ServiceValues | None


def _build_services(given: Any, info: ValidationInfo) -> ServiceRegistry:
    """Return the registry of the sources that the validator of the whole settings has passed."""
    code, variables = (
        (given.code, given.variables) if isinstance(given, _GivenServices) else ((), None)
    )
    try:
        return build_registry(code, variables, info.data.get("services_file"))
    except ValueError as error:
        raise PydanticCustomError("services", "{problem}", {"problem": str(error)}) from None


class CallSettings(EnvironmentSettings):
    """The fields of `Settings` about the services that this process calls."""

    model_config = SettingsConfigDict(env_prefix="BUS_")

    services_file: Path | None = None
    """TOML file with the configurations of services that this process calls."""
    services: Annotated[Sequence[ServiceConfig], PlainValidator(_build_services)] = Field(
        default=(), validate_default=True
    )
    """Configurations of services that this process calls.

    In code, write a list of `ServiceConfig`. The variable
    `BUS_SERVICES__BILLING__TIMEOUT` sets one value. A value of code wins over a variable, and a
    variable over `services_file`.
    """

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[Any],
        init_settings: Any,
        env_settings: Any,
        dotenv_settings: Any,
        file_secret_settings: Any,
    ) -> tuple[Any, ...]:
        """Add the variables of single services to the sources."""
        first, *rest = super().settings_customise_sources(
            settings_cls, init_settings, env_settings, dotenv_settings, file_secret_settings
        )
        environment = {**_variables_of(dotenv_settings), **os.environ}
        for source in (env_settings, dotenv_settings):
            # pydantic-settings would read JSON in this variable.
            source.env_vars = {
                name: value for name, value in source.env_vars.items() if name != VARIABLE.lower()
            }
        return first, VariablesSource(settings_cls, environment), *rest

    @property
    def registry(self) -> ServiceRegistry:
        """The configurations in `services`, with the source of each value."""
        return cast("ServiceRegistry", self.services)

    def service(self, name: str) -> ServiceConfig:
        """Return the configuration of a service. If it has none, no value is set.

        >>> url = Settings().service("transcription").base_url
        """
        return self.registry.by_name.get(name) or ServiceConfig(name)

    @model_validator(mode="before")
    @classmethod
    def _join_services(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Pass the variables of single services to the validator of `services`."""
        variables = values.pop(VALUES, None)
        if variables is not None or "services" in values:
            return {**values, "services": _GivenServices(values.get("services", ()), variables)}
        return values


def _variables_of(source: Any) -> dict[str, str]:
    """Return the variables of a file that pydantic-settings has read, with names in capitals."""
    return {name.upper(): value for name, value in source.env_vars.items() if value}
