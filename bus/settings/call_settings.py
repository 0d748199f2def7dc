"""The settings with the registry of the services that a process calls."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import Field, PlainValidator, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import SettingsConfigDict
from typing_extensions import override

from bus.settings.environment import EnvironmentSettings
from bus.settings.service_config import ServiceConfig
from bus.settings.service_defaults import ServiceDefaults
from bus.settings.service_registry import DEFAULT_REQUEST_TIMEOUT, ServiceRegistry
from bus.settings.service_sources import (
    VALUES,
    GivenServices,
    VariablesSource,
    build_registry,
)
from bus.settings.service_variables import DEFAULTS_VARIABLE, VARIABLE
from bus.settings.value_rules import MAX_TIMEOUT_SECONDS

__all__ = ["CallSettings"]


MAX_CACHE_BYTES = 2**40
"""Maximum bytes of all kept replies: 1 TiB."""
COMPLEX = frozenset({VARIABLE.lower(), DEFAULTS_VARIABLE.lower()})
"""Variables that have no value of their own. Each key has its own variable."""


def _build_services(given: Any, info: ValidationInfo) -> ServiceRegistry:
    """Return the registry of the sources that the validator of the whole settings has passed."""
    if not isinstance(given, GivenServices):
        given = GivenServices()
    path, timeout = info.data.get("services_file"), info.data.get("request_timeout")
    try:
        return build_registry(given, path, timeout)
    except ValueError as error:
        raise PydanticCustomError("services", "{problem}", {"problem": str(error)}) from None


def _take_defaults(_: Any, info: ValidationInfo) -> ServiceDefaults:
    """Return the defaults of all sources, which are a part of the registry."""
    registry = info.data.get("services")
    return registry.defaults if isinstance(registry, ServiceRegistry) else ServiceDefaults()


class CallSettings(EnvironmentSettings):
    """The fields of `Settings` about the services that this process calls."""

    model_config = SettingsConfigDict(env_prefix="BUS_")

    request_timeout: float = Field(default=DEFAULT_REQUEST_TIMEOUT, gt=0, le=MAX_TIMEOUT_SECONDS)
    """Maximum seconds to wait for a reply if the caller gives no `timeout`."""
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
    service_defaults: Annotated[ServiceDefaults, PlainValidator(_take_defaults)] = Field(
        default=ServiceDefaults(), validate_default=True
    )
    """Values for all services that this process calls and that have no value of their own.

    The variable `BUS_SERVICE_DEFAULTS__RETRIES` sets one value, and so does the table `[defaults]`
    of `services_file`.
    """
    cache_entries: int = Field(default=10_000, ge=0, le=1_000_000)
    """Maximum number of replies that this process keeps for contracts with `cache=`.

    With 0, no reply is kept.
    """
    cache_bytes: int = Field(default=32 * 1024 * 1024, ge=0, le=MAX_CACHE_BYTES)
    """Maximum bytes of the replies that this process keeps. With 0, no reply is kept."""

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
                name: value for name, value in source.env_vars.items() if name not in COMPLEX
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

    def timeout_of(self, service: str) -> float:
        """Return the seconds that a request to a service waits if the caller gives no `timeout`."""
        timeout = self.service(service).timeout
        return self.request_timeout if timeout is None else timeout

    @model_validator(mode="before")
    @classmethod
    def _join_services(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Pass the variables of single services to the validator of `services`."""
        variables = values.pop(VALUES, None)
        given = GivenServices(
            code=values.get("services", ()),
            defaults=values.get("service_defaults"),
            variables=variables,
        )
        return {**values, "services": given}


def _variables_of(source: Any) -> dict[str, str]:
    """Return the variables of a file that pydantic-settings has read, with names in capitals."""
    return {name.upper(): value for name, value in source.env_vars.items() if value}
