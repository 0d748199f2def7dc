"""Queues of the live screen: their messages, consumers and dead letters."""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bus.cli.fitting_table import Column, fitting_table
from bus.cli.queue_table import format_count, mark_count, total_messages
from bus.errors import BusError, Unavailable
from bus.messaging.escaped_text import one_line
from bus.messaging.service_info import InstanceStats
from bus.messaging.topology.names import dead_letter_queue
from bus.operations.queue_inspection import (
    BrokerAddress,
    QueueFilter,
    QueueReport,
    QueueStatus,
    inspect_queues,
)
from bus.runtime.discovery.live_view import LiveInstance
from bus.settings import Settings

__all__ = ["QueueReader", "QueueRow", "queue_rows", "queues_table"]

WORK = ("requests", "jobs", "events")
API_RETRY_ROUNDS = 15
"""Number of rounds after which a management API that did not answer is tried again."""
COLUMNS = (
    Column("queue", is_text=True),
    Column("ready"),
    Column("unacked", 2),
    Column("consumers", 1),
    Column("dead letters"),
)


@dataclass(frozen=True, slots=True)
class QueueRow:
    """A work queue with its dead letters, or a retry tier."""

    queue: QueueStatus
    dead: int | None
    """Number of dead letters. None if it is unknown, or if the queue has no dead letters."""
    is_unserved: bool = False
    """True if messages wait and no process consumes them."""


def queue_rows(report: QueueReport, live: Collection[str] = ()) -> list[QueueRow]:
    """Return the rows, those that need an operator first, then the longest queues.

    A retry tier and the queue of unroutable messages have a row only if they have messages.

    Args:
        report: The inspected queues.
        live: Queues that live instances consume. RabbitMQ counts consumers some seconds later.
    """
    queues = [queue for queue in report.queues if queue.exists]
    dead = {queue.work_queue: total_messages(queue) for queue in queues if queue.role == "dead"}
    rows = [
        QueueRow(
            queue,
            dead.get(queue.name),
            is_unserved=queue.consumers == 0 and bool(queue.ready) and queue.name not in live,
        )
        for queue in queues
        if queue.role in WORK
    ]
    rows += [QueueRow(queue, None) for queue in queues if queue.role == "retry" and queue.ready]
    rows += [
        QueueRow(queue, total_messages(queue))
        for queue in queues
        if queue.role == "dead" and queue.work_queue is None and total_messages(queue)
    ]
    return sorted(
        rows,
        key=lambda row: (
            not row.is_unserved,
            -(row.dead or 0),
            -(row.queue.ready or 0),
            row.queue.name,
        ),
    )


def queues_table(rows: Sequence[QueueRow], console: Console) -> Table:
    """Return the table of the rows."""
    return fitting_table(COLUMNS, map(_cells, rows), console)


def _cells(row: QueueRow) -> tuple[str | Text, ...]:
    queue = row.queue
    is_work = queue.role in WORK
    has_dead = queue.role in {"jobs", "events", "dead"}
    return (
        one_line(queue.name),
        format_count(queue.ready) if queue.role != "dead" else "",
        format_count(queue.unacked) if queue.role != "dead" else "",
        mark_count(queue.consumers, "bold yellow", when=row.is_unserved) if is_work else "",
        mark_count(row.dead, "bold red", when=bool(row.dead)) if has_dead else "",
    )


class QueueReader:
    """Inspects the queues again and again, and keeps the last report.

    With the management API, it inspects all queues. Without the API, it inspects the queues of live
    instances, which report their names.
    """

    def __init__(
        self,
        settings: Settings,
        service: str | None,
        instances: Callable[[], Iterable[LiveInstance]],
    ) -> None:
        """Create the reader.

        Args:
            settings: Settings with the addresses of the broker.
            service: Name of the service whose queues are inspected. None: all services.
            instances: Returns the live instances.
        """
        self._settings, self._service, self._instances = settings, service, instances
        self.report: QueueReport | None = None
        self.error: BusError | None = None
        """Reason why the last inspection failed."""
        self._rounds_without_api = 0

    async def run(self, interval: float, on_change: Callable[[], None]) -> None:
        """Inspect the queues every `interval` seconds until this task is cancelled."""
        while True:
            await self.read()
            on_change()
            await asyncio.sleep(interval)

    async def read(self) -> None:
        """Inspect the queues once. If the inspection fails, keep the former report."""
        try:
            report = await self._inspect()
        except BusError as error:
            self.error = error
            return
        self.error = None
        self.report = report or self.report

    async def _inspect(self) -> QueueReport | None:
        broker = BrokerAddress.of(self._settings, renew=True)
        if self._rounds_without_api % API_RETRY_ROUNDS == 0:
            try:
                report = await inspect_queues(broker, QueueFilter(service=self._service))
            except Unavailable:
                self._rounds_without_api = 1
            else:
                self._rounds_without_api = 0
                return report
        else:
            self._rounds_without_api += 1
        names = tuple(queues_of(self._instances()))
        # A filter without names would select all queues, which only the API can list.
        return await inspect_queues(broker, QueueFilter(names=names)) if names else None


def queues_of(instances: Iterable[LiveInstance]) -> set[str]:
    """Return the queues that live instances consume, and their queues of dead letters."""
    handlers = [
        handler
        for each in instances
        if each.is_live and isinstance(each.record, InstanceStats)
        for handler in each.record.handlers
    ]
    return {handler.queue for handler in handlers} | {
        dead_letter_queue(handler.queue) for handler in handlers if handler.kind != "request"
    }
