"""The rows of the Grafana dashboard about messages and errors."""

from dashboard_queries import (
    BY_OPERATION,
    BY_SENDER,
    FAILED,
    NOT_OK,
    OF_OPERATION,
    ORANGE,
    RED,
    Panel,
    Query,
    Row,
    increase,
    quantile,
    rate,
    series,
)

from bus.messaging.instruments import (
    DEAD_LETTERS,
    DUPLICATES,
    HANDLED,
    HANDLER_SECONDS,
    READY,
    RETRIES,
    SENT,
    STALE_COMMITS,
)

__all__ = ["FAILURES", "NOW", "TRAFFIC"]

ALERT_LABELS = ("severity", "service", "operation", "caller", "queue", "instance")
"""Labels of alerts that the dashboard shows."""

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
            queries=(
                Query(
                    f"max by (alertname, {', '.join(ALERT_LABELS)}) "
                    '(ALERTS{alertname=~"Trunkline.+",alertstate="firing"})',
                    "",
                ),
            ),
            kind="table",
            width=24,
            height=6,
            columns=tuple((name, name) for name in ("alertname", *ALERT_LABELS)),
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
            queries=(Query(rate(f"{BY_OPERATION}, kind", SENT), f"{BY_SENDER} ({{{{kind}}}})"),),
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
                    f"{BY_SENDER} {{{{outcome}}}}",
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
            description="Messages that the service moved to a dead-letter queue within the "
            "interval of one point. Run `bus dead list --service NAME`.",
            queries=(
                Query(
                    increase(f"{BY_OPERATION}, outcome", DEAD_LETTERS, "$__rate_interval"),
                    f"{OF_OPERATION} {{{{outcome}}}}",
                ),
            ),
        ),
        Panel(
            title="Duplicates",
            description="Copies that were not handled, because their message had been handled. "
            "Some are normal after a lost connection. A process that did not renew its "
            "claim in time discards its transaction.",
            queries=(
                Query(rate(BY_OPERATION, DUPLICATES), OF_OPERATION),
                Query(rate(BY_OPERATION, STALE_COMMITS), f"{OF_OPERATION} discarded transactions"),
            ),
            unit="mps",
        ),
    ),
)
