"""The rows of the Grafana dashboard about RabbitMQ, from its plugin rabbitmq_prometheus."""

from dashboard_queries import Panel, Query, Row

__all__ = ["BROKER", "QUEUES"]

WORK, DEAD = "(requests|jobs|events)[.].+", ".+[.]dead"
QUEUE = "{{queue}}"


def queue(metric: str, names: str, unlike: str = "") -> str:
    """Return the sum over the nodes of a metric of the queues of the chosen services."""
    matchers = f'queue=~"${{service}}[.]{names}"' + (f',queue!~"{unlike}"' if unlike else "")
    return f"sum by (vhost, queue) (rabbitmq_detailed_queue_{metric}{{{matchers}}})"


QUEUES = Row(
    "RabbitMQ: what waits in the queues?",
    (
        Panel(
            title="Ready messages in work queues",
            description="Messages that wait for a consumer. Run `bus queues`.",
            queries=(Query(queue("messages_ready", WORK, DEAD), QUEUE),),
        ),
        Panel(
            title="Unacked messages in work queues",
            description="Messages that a consumer holds. If they do not change, handlers hang.",
            queries=(Query(queue("messages_unacked", WORK, DEAD), QUEUE),),
        ),
        Panel(
            title="Consumers of work queues",
            description="A work queue without a consumer has no service that handles its messages.",
            queries=(Query(queue("consumers", WORK, DEAD), QUEUE),),
        ),
        Panel(
            title="Messages in dead-letter queues",
            description="They stay until an operator replays or deletes them.",
            queries=(Query(queue("messages", DEAD), QUEUE),),
            width=12,
        ),
        Panel(
            title="Messages in retry tiers",
            description="Failed messages that wait for their next attempt.",
            queries=(Query(queue("messages", "retry[.].+"), QUEUE),),
            width=12,
        ),
    ),
)

BROKER = Row(
    "RabbitMQ: is the broker well?",
    (
        Panel(
            title="Alarms",
            description="1 during an alarm. RabbitMQ then accepts no messages.",
            queries=(
                Query(
                    'max by (alarm) (label_replace({__name__=~"rabbitmq_alarms_.+"}, '
                    '"alarm", "$1", "__name__", "rabbitmq_alarms_(.+)"))',
                    "{{alarm}}",
                ),
            ),
        ),
        Panel(
            title="Memory",
            description="At the limit RabbitMQ raises an alarm.",
            queries=(
                Query("rabbitmq_process_resident_memory_bytes", "used {{instance}}"),
                Query("rabbitmq_resident_memory_limit_bytes", "limit {{instance}}"),
            ),
            unit="bytes",
        ),
        Panel(
            title="Disk space",
            description="Below the limit RabbitMQ raises an alarm.",
            queries=(
                Query("rabbitmq_disk_space_available_bytes", "free {{instance}}"),
                Query("rabbitmq_disk_space_available_limit_bytes", "limit {{instance}}"),
            ),
            unit="bytes",
        ),
        Panel(
            title="Connections and channels",
            description="A process of the bus has three connections.",
            queries=(
                Query("sum(rabbitmq_connections)", "connections"),
                Query("sum(rabbitmq_channels)", "channels"),
            ),
        ),
        Panel(
            title="Opened and closed connections",
            description="Many of both mean that clients connect again and again.",
            queries=(
                Query("sum(rate(rabbitmq_connections_opened_total[$__rate_interval]))", "opened"),
                Query("sum(rate(rabbitmq_connections_closed_total[$__rate_interval]))", "closed"),
            ),
            unit="cps",
        ),
        Panel(
            title="Messages through the broker",
            description="All messages of all clients.",
            queries=(
                Query(
                    "sum(rate(rabbitmq_global_messages_received_total[$__rate_interval]))",
                    "published",
                ),
                Query(
                    "sum(rate(rabbitmq_global_messages_delivered_total[$__rate_interval]))",
                    "delivered",
                ),
                Query(
                    "sum(rate(rabbitmq_global_messages_redelivered_total[$__rate_interval]))",
                    "redelivered",
                ),
            ),
            unit="mps",
        ),
    ),
)
