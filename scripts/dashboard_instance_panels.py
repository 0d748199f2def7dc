"""The rows of the Grafana dashboard about callers, versions and instances."""

from dashboard_queries import GREEN, RED, Panel, Query, Row, increase, rate, series

from bus.messaging.instruments import CONNECTIONS_LOST, HANDLED, READY

__all__ = ["INSTANCES", "VERSIONS"]

BUILD_INFO = 'trunkline_build_info{service=~"$service"}'
OF_SERVICES = f"and on (job, instance) {BUILD_INFO}"

VERSIONS = Row(
    "Who calls, and in which version?",
    (
        Panel(
            title="Callers by version of the contract",
            description="Handled messages in the shown time. Before you remove a version, its rows "
            "must be 0 for longer than the longest retry. See `bus contracts usage`.",
            queries=(
                Query(
                    increase("service, operation, version, caller", HANDLED, "$__range"),
                    "",
                ),
            ),
            kind="table",
            width=12,
            unit="none",
            columns=(
                ("service", "service"),
                ("operation", "operation"),
                ("version", "version"),
                ("caller", "caller"),
                ("Value", "messages"),
            ),
        ),
        Panel(
            title="Handled messages by version",
            description="The use of an old version ends when its last caller is changed.",
            queries=(
                Query(
                    rate("operation, version, caller", HANDLED),
                    "{{operation}} v{{version}} by {{caller}}",
                ),
            ),
            unit="mps",
            width=12,
        ),
    ),
)

INSTANCES = Row(
    "Which instances run?",
    (
        Panel(
            title="State of each instance",
            description="Ready means that each consumer of the instance is registered at the "
            "broker now.",
            queries=(
                Query(f"max by (service, instance) ({series(READY)})", "{{service}} {{instance}}"),
            ),
            kind="state-timeline",
            mappings={"0": ("not ready", RED), "1": ("ready", GREEN)},
        ),
        Panel(
            title="Instances by state",
            description="Live instances that `bus exporter` found. It needs the exporter, and "
            "finds instances that Prometheus does not know.",
            queries=(
                Query(
                    'sum by (service, state) (trunkline_instances{service=~"$service"})',
                    "{{service}} {{state}}",
                ),
            ),
        ),
        Panel(
            title="Lost connections per minute",
            description="Connections to the broker that a process lost. The bus connects again by "
            "itself.",
            queries=(
                Query(
                    f"60 * {rate('service, instance', CONNECTIONS_LOST)}",
                    "{{service}} {{instance}}",
                ),
            ),
        ),
        Panel(
            title="Versions",
            description="Versions of the bus and of the services (`BUS_SERVICE_VERSION`), and the "
            "number of targets that run them.",
            queries=(Query(f"count by (service, service_version, version) ({BUILD_INFO})", ""),),
            kind="table",
            unit="none",
            columns=(
                ("service", "service"),
                ("service_version", "version of the service"),
                ("version", "version of the bus"),
                ("Value", "targets"),
            ),
        ),
        Panel(
            title="CPU of each process",
            description="At 1 the process uses a whole core, so its event loop is late.",
            queries=(
                Query(
                    f"rate(process_cpu_seconds_total[$__rate_interval]) {OF_SERVICES}",
                    "{{instance}} {{process}}",
                ),
            ),
        ),
        Panel(
            title="Memory of each process",
            description="Resident memory. The bus itself keeps bounded amounts.",
            queries=(
                Query(
                    f"process_resident_memory_bytes {OF_SERVICES}",
                    "{{instance}} {{process}}",
                ),
            ),
            unit="bytes",
        ),
    ),
)
