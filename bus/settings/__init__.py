"""Settings of a service, read from the environment and validated once.

No other package reads the environment.
"""

from bus.settings.environment import EnvironmentSettings, semconv_opt_in
from bus.settings.loading import load_settings
from bus.settings.service import Settings
from bus.settings.service_config import ServiceConfig

__all__ = ["EnvironmentSettings", "ServiceConfig", "Settings", "load_settings", "semconv_opt_in"]
