"""The configurations of all services that this process calls."""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, overload

from typing_extensions import override

from bus.messaging.call_limits import CallLimits
from bus.messaging.resilience.call_policy import CallPolicy
from bus.settings.call_policies import policy_from
from bus.settings.service_config import KEYS, ServiceConfig
from bus.settings.service_defaults import (
    POLICY_KEYS,
    CallValues,
    ServiceDefaults,
    set_values_of,
)
from bus.settings.service_variables import DEFAULTS
from bus.settings.value_rules import TIMED_KEYS

__all__ = ["DEFAULT_REQUEST_TIMEOUT", "ServiceRegistry", "Source"]

NO_ORIGINS: Mapping[tuple[str, str], str] = MappingProxyType({})
REQUEST_TIMEOUT, ATTEMPT_TIMEOUT = "BUS_REQUEST_TIMEOUT", "attempt_timeout"
Source = Literal["code", "variables", "file"]
"""A place where a service is configured."""
NOT_NAMED: Mapping[str, Mapping[Source, str]] = MappingProxyType({})
NO_DEFAULTS = ServiceDefaults()
DEFAULT_REQUEST_TIMEOUT = 10.0
"""Default of `BUS_REQUEST_TIMEOUT`, in seconds."""


class ServiceRegistry(Sequence[ServiceConfig]):
    """The configurations of the services, and the source of each value. It never changes."""

    def __init__(
        self,
        configs: Iterable[ServiceConfig] = (),
        origins: Mapping[tuple[str, str], str] = NO_ORIGINS,
        named_in: Mapping[str, Mapping[Source, str]] = NOT_NAMED,
        *,
        defaults: ServiceDefaults = NO_DEFAULTS,
        request_timeout: float = DEFAULT_REQUEST_TIMEOUT,
    ) -> None:
        """Create the registry.

        Args:
            configs: One configuration for each service.
            origins: Variable or file that has set a value, by service and key. A value of code has
                no origin.
            named_in: The sources that name a service, by service. The value describes the place.
            defaults: Values of all services. The value of a service wins.
            request_timeout: Seconds that a request waits if its service has no timeout.
        """
        self.defaults = defaults
        self._request_timeout = request_timeout
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
        return self._describe(service, KEYS, self.by_name[service])

    def describe_defaults(self) -> list[str]:
        """Return the values of all services that are set, each with its origin."""
        return self._describe(DEFAULTS, POLICY_KEYS, self.defaults)

    def _describe(self, service: str, keys: Sequence[str], values: CallValues) -> list[str]:
        return [
            f"{key} {_format(key, getattr(values, key))} ({self.origin(service, key)})"
            for key in keys
            if getattr(values, key) is not None
        ]

    def limits(self) -> dict[str, CallLimits]:
        """Return the limits of calls without a timeout of the caller, by service."""
        policies = self.policies()
        return {
            config.name: CallLimits(
                setting=self._name_timeout(config),
                retries=policies[config.name].retries,
                attempt_setting=self._name_attempt_timeout(config),
            )
            for config in self._configs
        }

    def default_limits(self) -> CallLimits:
        """Return the limits of calls to a service that has no configuration."""
        return CallLimits(
            setting=REQUEST_TIMEOUT,
            retries=self.defaults.retries,
            attempt_setting=self._name_attempt_timeout(self.defaults),
        )

    def policies(self) -> dict[str, CallPolicy]:
        """Return the policies of calls, by service."""
        defaults = set_values_of(self.defaults)
        return {
            config.name: policy_from(
                {**defaults, **set_values_of(config)}, config.timeout or self._request_timeout
            )
            for config in self._configs
        }

    def default_policy(self) -> CallPolicy:
        """Return the policy of calls to a service that has no configuration."""
        return policy_from(set_values_of(self.defaults), self._request_timeout)

    def _name_timeout(self, config: ServiceConfig) -> str:
        """Return the setting that an operator raises if requests to the service time out."""
        if config.timeout is None:
            return REQUEST_TIMEOUT
        return self._name_setting(config.name, "timeout")

    def _name_attempt_timeout(self, values: CallValues) -> str | None:
        """Return the setting that an operator raises if attempts time out, or None."""
        if isinstance(values, ServiceConfig) and values.attempt_timeout is not None:
            return self._name_setting(values.name, ATTEMPT_TIMEOUT)
        if self.defaults.attempt_timeout is not None:
            return self._name_setting(DEFAULTS, ATTEMPT_TIMEOUT)
        return None

    def _name_setting(self, service: str, key: str) -> str:
        """Return the variable, the key of the file or the argument that has set a value."""
        origin = self._origins.get((service, key))
        if origin is None:
            subject = "ServiceDefaults" if service == DEFAULTS else f"ServiceConfig({service!r})"
            return f"{subject}.{key}"
        if origin.startswith("BUS_"):
            return origin
        table = "defaults" if service == DEFAULTS else f"services.{service}"
        return f"{table}.{key} in {origin}"


def _format(key: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value:.10g} s" if key in TIMED_KEYS else f"{value:.10g}"
