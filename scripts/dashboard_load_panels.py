"""The rows of the Grafana dashboard about durations and slots."""

from dashboard_queries import (
    BY_OPERATION,
    BY_SENDER,
    OF_OPERATION,
    ORANGE,
    RED,
    Panel,
    Query,
    Row,
    quantiles,
    series,
)

from bus.messaging.instruments import (
    HANDLER_SECONDS,
    IN_FLIGHT,
    SEND_SECONDS,
    SLOTS,
    SLOTS_FREE,
    START_DELAY_SECONDS,
)

__all__ = ["LATENCY", "SATURATION"]

LATENCY = Row(
    "How fast is it?",
    (
        Panel(
            title="Duration of handlers",
            description="Duration of one attempt in the service.",
            queries=quantiles(HANDLER_SECONDS, OF_OPERATION),
            unit="s",
            height=11,
            has_exemplars=True,
        ),
        Panel(
            title="Duration for the caller",
            description="Time until the reply to a request, or until the broker's confirm of an "
            "event or job. It includes the broker and the wait for a slot.",
            queries=quantiles(SEND_SECONDS, BY_SENDER),
            unit="s",
            height=11,
            has_exemplars=True,
        ),
        Panel(
            title="From publish to start",
            description="Time from the publish to the start of the first attempt. If it grows, the "
            "service has too few slots or slow handlers.",
            queries=quantiles(START_DELAY_SECONDS, OF_OPERATION),
            unit="s",
            height=11,
            has_exemplars=True,
        ),
        Panel(
            title="Distribution of the durations of handlers",
            description="Two bands mean two kinds of work, or a dependency that is slow at times.",
            queries=(
                Query(
                    f"sum by (le) (increase({series(HANDLER_SECONDS, part='_bucket')}"
                    "[$__rate_interval]))",
                    "{{le}}",
                ),
            ),
            unit="s",
            kind="heatmap",
            width=24,
        ),
    ),
)

SATURATION = Row(
    "Is it full?",
    (
        Panel(
            title="Used share of the slots",
            description="At 100 % further messages wait. Start more instances, or raise "
            "`concurrency`.",
            queries=(
                Query(
                    f"1 - sum by ({BY_OPERATION}) ({series(SLOTS_FREE)}) "
                    f"/ sum by ({BY_OPERATION}) ({series(SLOTS)})",
                    OF_OPERATION,
                ),
            ),
            unit="percentunit",
            thresholds=((0.8, ORANGE), (1, RED)),
        ),
        Panel(
            title="Slots, used and free",
            description="Slots of all instances together.",
            queries=(
                Query(
                    f"sum by ({BY_OPERATION}) ({series(SLOTS)}) "
                    f"- sum by ({BY_OPERATION}) ({series(SLOTS_FREE)})",
                    f"used {OF_OPERATION}",
                ),
                Query(f"sum by ({BY_OPERATION}) ({series(SLOTS_FREE)})", f"free {OF_OPERATION}"),
            ),
        ),
        Panel(
            title="Messages in flight",
            description="Messages that were received and are not settled, with and without a slot.",
            queries=(Query(f"sum by ({BY_OPERATION}) ({series(IN_FLIGHT)})", OF_OPERATION),),
        ),
    ),
)
