"""Settings of a service, read from the environment and validated once.

No other package reads the environment.
"""

from bus.settings.environment import EnvironmentSettings, semconv_opt_in
from bus.settings.loading import load_settings
from bus.settings.service import Settings
from bus.settings.service_config import ServiceConfig
from bus.settings.service_defaults import ServiceDefaults

__all__ = [
    "EnvironmentSettings",
    "ServiceConfig",
    "ServiceDefaults",
    "Settings",
    "load_settings",
    "semconv_opt_in",
]
