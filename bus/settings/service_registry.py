"""The configurations of all services that this process calls."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, overload

from typing_extensions import override

from bus.messaging.call_limits import CallLimits
from bus.messaging.resilience.call_policy import CallPolicy
from bus.settings.service_config import KEYS, ServiceConfig

__all__ = ["ServiceRegistry", "Source"]

NO_ORIGINS: Mapping[tuple[str, str], str] = MappingProxyType({})
REQUEST_TIMEOUT = "BUS_REQUEST_TIMEOUT"
Source = Literal["code", "variables", "file"]
"""A place where a service is configured."""
NOT_NAMED: Mapping[str, Mapping[Source, str]] = MappingProxyType({})


class ServiceRegistry(Sequence[ServiceConfig]):
    """The configurations of the services, and the source of each value. It never changes."""

    def __init__(
        self,
        configs: Iterable[ServiceConfig] = (),
        origins: Mapping[tuple[str, str], str] = NO_ORIGINS,
        named_in: Mapping[str, Mapping[Source, str]] = NOT_NAMED,
    ) -> None:
        """Create the registry.

        Args:
            configs: One configuration for each service.
            origins: Variable or file that has set a value, by service and key. A value of code has
                no origin.
            named_in: The sources that name a service, by service. The value describes the place.
        """
        self._configs = tuple(configs)
        self._origins = dict(origins)
        self._named_in = dict(named_in)
        self.by_name: Mapping[str, ServiceConfig] = MappingProxyType(
            {config.name: config for config in self._configs}
        )

    @overload
    def __getitem__(self, index: int) -> ServiceConfig: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[ServiceConfig]: ...
    @override
    def __getitem__(self, index: int | slice) -> ServiceConfig | Sequence[ServiceConfig]:
        return self._configs[index]

    @override
    def __len__(self) -> int:
        return len(self._configs)

    @override
    def __repr__(self) -> str:
        return repr(list(self._configs))

    def origin(self, service: str, key: str) -> str:
        """Return the variable or the file that has set a value, or `code`."""
        return self._origins.get((service, key), "code")

    def named_in(self, service: str) -> Mapping[Source, str]:
        """Return the sources that name a service, each with a description of the place."""
        return self._named_in.get(service, {})

    def describe(self, service: str) -> list[str]:
        """Return the values of a service that are set, each with its origin."""
        config = self.by_name[service]
        return [
            f"{key} {_format(getattr(config, key))} ({self.origin(service, key)})"
            for key in KEYS
            if getattr(config, key) is not None
        ]

    def limits(self) -> dict[str, CallLimits]:
        """Return the limits of calls without a timeout of the caller, by service."""
        return {
            config.name: CallLimits(setting=self._name_timeout(config), retries=config.retries)
            for config in self._configs
        }

    def policies(self) -> dict[str, CallPolicy]:
        """Return the policies of calls, by service."""
        return {config.name: CallPolicy(retries=config.retries) for config in self._configs}

    def _name_timeout(self, config: ServiceConfig) -> str:
        """Return the setting that an operator raises if requests to the service time out."""
        if config.timeout is None:
            return REQUEST_TIMEOUT
        origin = self._origins.get((config.name, "timeout"))
        if origin is None:
            return f"ServiceConfig({config.name!r}).timeout"
        if origin.startswith("BUS_"):
            return origin
        return f"services.{config.name}.timeout in {origin}"


def _format(value: float | str) -> str:
    return f"{value:.10g} s" if isinstance(value, float) else str(value)
