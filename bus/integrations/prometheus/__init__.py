"""Prometheus: the measurements of the bus as metrics. The extra `metrics` installs the library.

>>> REGISTRY.register(collector(bus))  # in an application with its own page of metrics
"""

from bus.errors import ConfigurationError

try:
    from bus.integrations.prometheus.collectors import collector, process_registry
    from bus.integrations.prometheus.exporter import Exporter
    from bus.integrations.prometheus.exporter_metrics import exporter_registry
    from bus.integrations.prometheus.page import MetricsPage
    from bus.integrations.prometheus.processes import ProcessesCollector, processes_registry
except ModuleNotFoundError as error:
    if error.name is None or not error.name.startswith("prometheus_client"):
        raise
    raise ConfigurationError(
        "prometheus-client is not installed. Run `pip install 'trunkline[metrics]'`."
    ) from error
from bus.integrations.prometheus.names import metric_name

__all__ = [
    "Exporter",
    "MetricsPage",
    "ProcessesCollector",
    "collector",
    "exporter_registry",
    "metric_name",
    "process_registry",
    "processes_registry",
]
