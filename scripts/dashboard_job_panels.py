"""The row of the Grafana dashboard about durable jobs, their store and paused consumers."""

from dashboard_queries import (
    BY_OPERATION,
    OF_OPERATION,
    ORANGE,
    RED,
    Panel,
    Query,
    Row,
    increase,
    quantile,
    quantiles,
    rate,
    series,
)

from bus.messaging.instruments import CONSUMERS_PAUSED
from bus.messaging.store_instruments import (
    JOBS_LEASES_LOST,
    JOBS_OLDEST_WAITING,
    JOBS_RECORDED,
    JOBS_ROWS,
    JOBS_STALE_WRITES,
    JOBS_START_DELAY,
    STORE_REACHABLE,
    STORE_STATEMENT_SECONDS,
)

__all__ = ["JOBS"]

JOBS = Row(
    "Are the durable jobs done?",
    (
        Panel(
            title="Jobs in the store",
            description="Jobs by state. All instances of a service report the same rows. Run "
            "`bus jobs list --state failed` for the failed ones.",
            queries=(
                Query(
                    f"max by ({BY_OPERATION}, state) ({series(JOBS_ROWS)})",
                    f"{{{{state}}}} {OF_OPERATION}",
                ),
            ),
        ),
        Panel(
            title="Oldest waiting job",
            description="Time for which a job has been due, and no worker has started it. Start "
            "more instances, or run `bus consumers list` to see whether an operator paused them.",
            queries=(
                Query(f"max by ({BY_OPERATION}) ({series(JOBS_OLDEST_WAITING)})", OF_OPERATION),
            ),
            unit="s",
            thresholds=((60, ORANGE), (600, RED)),
        ),
        Panel(
            title="From submission to start",
            description="Time from the submission of a job to the start of its first attempt.",
            queries=quantiles(JOBS_START_DELAY, OF_OPERATION),
            unit="s",
        ),
        Panel(
            title="Recorded jobs",
            description="New jobs in the store in a second.",
            queries=(Query(rate(BY_OPERATION, JOBS_RECORDED), OF_OPERATION),),
            unit="mps",
        ),
        Panel(
            title="Lost leases and stale writes",
            description="Attempts that lost their job to another worker, and writes that the store "
            "refused because of it. The worker was slow, or could not reach the store in time.",
            queries=(
                Query(
                    increase(BY_OPERATION, JOBS_LEASES_LOST, "$__rate_interval"),
                    f"lost leases {OF_OPERATION}",
                ),
                Query(
                    increase(BY_OPERATION, JOBS_STALE_WRITES, "$__rate_interval"),
                    f"stale writes {OF_OPERATION}",
                ),
            ),
        ),
        Panel(
            title="Statements in the store (p99)",
            description="Duration of a statement by its name, with the wait for a connection.",
            queries=(
                Query(
                    quantile(0.99, "service, statement", STORE_STATEMENT_SECONDS),
                    "{{statement}} of {{service}}",
                ),
            ),
            unit="s",
        ),
        Panel(
            title="Store",
            description="0 if at least one instance of the service cannot reach its store. No job "
            "is lost: new jobs wait in their queues. Run `bus store check`.",
            queries=(Query(f"min by (service) ({series(STORE_REACHABLE)})", "{{service}}"),),
            kind="stat",
            width=12,
            height=5,
            is_red_below=1,
        ),
        Panel(
            title="Consumers that an operator paused",
            description="Paused consumers in all instances. Run `bus consumers list` for the "
            "operator, the reason and the end.",
            queries=(Query(f"sum by ({BY_OPERATION}) ({series(CONSUMERS_PAUSED)})", OF_OPERATION),),
            width=12,
            height=5,
        ),
    ),
)
