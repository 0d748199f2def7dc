"""The rows of the Grafana dashboard about messages, errors, versions and instances."""

from dashboard_queries import (
    BY_OPERATION,
    FAILED,
    GREEN,
    NOT_OK,
    OF_OPERATION,
    ORANGE,
    RED,
    Panel,
    Query,
    Row,
    quantile,
    rate,
    series,
)

from bus.messaging.instruments import (
    CONNECTIONS_LOST,
    DEAD_LETTERS,
    DUPLICATES,
    HANDLED,
    HANDLER_SECONDS,
    READY,
    RETRIES,
    SENT,
)

__all__ = ["FAILURES", "INSTANCES", "NOW", "TRAFFIC", "VERSIONS"]

BUILD_INFO = 'trunkline_build_info{service=~"$service"}'
OF_SERVICES = f"and on (job, instance) {BUILD_INFO}"

NOW = Row(
    "Does it work now?",
    (
        Panel(
            title="Ready instances",
            description="Instances of which each consumer is registered at the broker. If a "
            "service has none, run `bus services NAME`.",
            queries=(Query(f"sum by (service) ({series(READY)})", "{{service}}"),),
            kind="stat",
            width=5,
            height=5,
            is_red_below=1,
        ),
        Panel(
            title="Failed attempts",
            description="Share of the attempts that failed by a fault of the service. Faults of "
            "callers, such as `not_found`, are not in it.",
            queries=(
                Query(
                    f"{rate('service', HANDLED, FAILED)} / {rate('service', HANDLED)} "
                    f"or 0 * {rate('service', HANDLED)}",
                    "{{service}}",
                ),
            ),
            unit="percentunit",
            kind="stat",
            width=5,
            height=5,
            thresholds=((0.001, ORANGE), (0.0144, RED)),
        ),
        Panel(
            title="Slow requests (p99)",
            description="One of a hundred requests takes longer than this at the service.",
            queries=(
                Query(quantile(0.99, "service", HANDLER_SECONDS, 'kind="request"'), "{{service}}"),
            ),
            unit="s",
            kind="stat",
            width=5,
            height=5,
            thresholds=((0.5, ORANGE), (1, RED)),
        ),
        Panel(
            title="Dead letters",
            description="Dead letters in all queues of the service: work that was not done. Run "
            "`bus dead list --service NAME`.",
            queries=(
                Query(
                    'sum by (service) (label_replace(rabbitmq_detailed_queue_messages{queue=~"'
                    '${service}[.].+[.]dead"}, "service", "$1", "queue", "([^.]+)[.].+"))',
                    "{{service}}",
                ),
            ),
            kind="stat",
            width=5,
            height=5,
            thresholds=((1, RED),),
        ),
        Panel(
            title="Alarms of RabbitMQ",
            description="During an alarm for memory or disk space RabbitMQ accepts no messages.",
            queries=(Query('sum({__name__=~"rabbitmq_alarms_.+"})', "alarms"),),
            kind="stat",
            width=4,
            height=5,
            thresholds=((1, RED),),
        ),
        Panel(
            title="Alerts that fire",
            description="Alerts of alerts.yml. Their descriptions have the command to run. The "
            "panel is empty if all is well.",
            queries=(Query('ALERTS{alertname=~"Trunkline.+",alertstate="firing"}', ""),),
            kind="table",
            width=24,
            height=6,
            hidden=("Time", "Value", "__name__", "alertstate", "job", "vhost"),
        ),
    ),
)

TRAFFIC = Row(
    "How much work is done, and what fails?",
    (
        Panel(
            title="Handled messages",
            description="Attempts to handle a request, event or job.",
            queries=(
                Query(rate(f"{BY_OPERATION}, kind", HANDLED), f"{OF_OPERATION} ({{{{kind}}}})"),
            ),
            unit="mps",
            width=12,
        ),
        Panel(
            title="Sent messages",
            description="Requests, events and jobs by their sender.",
            queries=(Query(rate(f"{BY_OPERATION}, kind", SENT), f"{OF_OPERATION} ({{{{kind}}}})"),),
            unit="mps",
            width=12,
        ),
        Panel(
            title="Errors of handlers, by code",
            description="Attempts that ended with an error. docs/reference/errors.md explains the "
            "codes. Run `bus services NAME` for the line of code.",
            queries=(
                Query(
                    rate(f"{BY_OPERATION}, outcome", HANDLED, NOT_OK),
                    f"{OF_OPERATION} {{{{outcome}}}}",
                ),
            ),
            unit="mps",
            width=12,
        ),
        Panel(
            title="Errors that callers received, by code",
            description="Errors of the service, of the broker and of the connection. A service "
            "that does not run has errors only here.",
            queries=(
                Query(
                    rate(f"{BY_OPERATION}, outcome", SENT, NOT_OK),
                    f"{OF_OPERATION} {{{{outcome}}}}",
                ),
            ),
            unit="mps",
            width=12,
        ),
    ),
)

FAILURES = Row(
    "What is tried again, and what is abandoned?",
    (
        Panel(
            title="Retries, by code",
            description="Failed attempts after which a message entered a retry tier. `bus queues` "
            "shows the messages that wait there.",
            queries=(
                Query(rate(f"{BY_OPERATION}, outcome", RETRIES), f"{OF_OPERATION} {{{{outcome}}}}"),
            ),
            unit="mps",
        ),
        Panel(
            title="New dead letters, by code",
            description="Messages that the service moved to a dead-letter queue. Run "
            "`bus dead list --service NAME`.",
            queries=(
                Query(
                    f"sum by ({BY_OPERATION}, outcome) "
                    f"(increase({series(DEAD_LETTERS)}[$__rate_interval]))",
                    f"{OF_OPERATION} {{{{outcome}}}}",
                ),
            ),
            kind="bars",
        ),
        Panel(
            title="Duplicates",
            description="Copies that were not handled, because their message had been handled. "
            "Some are normal after a lost connection.",
            queries=(Query(rate(BY_OPERATION, DUPLICATES), OF_OPERATION),),
            unit="mps",
        ),
    ),
)

VERSIONS = Row(
    "Who calls, and in which version?",
    (
        Panel(
            title="Callers by version of the contract",
            description="Handled messages in the shown time. Before you remove a version, its rows "
            "must be 0 for longer than the longest retry. See `bus contracts usage`.",
            queries=(
                Query(
                    "sum by (service, operation, version, caller) "
                    f"(increase({series(HANDLED)}[$__range]))",
                    "",
                ),
            ),
            kind="table",
            width=12,
            unit="none",
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
            title="Lost connections",
            description="Connections to the broker that a process lost. The bus connects again by "
            "itself.",
            queries=(
                Query(
                    "sum by (service, instance) "
                    f"(increase({series(CONNECTIONS_LOST)}[$__rate_interval]))",
                    "{{service}} {{instance}}",
                ),
            ),
            kind="bars",
        ),
        Panel(
            title="Versions",
            description="Versions of the bus and of the services (`BUS_SERVICE_VERSION`), and the "
            "number of targets that run them.",
            queries=(Query(f"count by (service, service_version, version) ({BUILD_INFO})", ""),),
            kind="table",
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
