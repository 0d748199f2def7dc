"""The live screen of `bus top`, as lines that fit into the terminal."""

import time
from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from bus.cli.quantities import format_rate
from bus.cli.services.job_lines import job_lines
from bus.cli.services.list_table import problem_lines
from bus.cli.top.operations import Sort, important_rows, operation_rows, operations_table
from bus.cli.top.queues import QueueReader, queue_rows, queues_of, queues_table
from bus.messaging.escaped_text import one_line
from bus.messaging.plurals import count_noun
from bus.runtime.discovery.live_feed import LiveFeed
from bus.runtime.discovery.live_view import LiveView
from bus.runtime.discovery.measurements import Measurements
from bus.runtime.discovery.service_summary import ServiceSummary, summarize_services

__all__ = ["TopScreen"]

MAX_PROBLEMS = 5
TABLE_LINES = 3
"""Lines of a table beside its rows: an empty line, the header, and the number of hidden rows."""
MIN_ROWS = 3


class TopScreen:
    """The state of operations and queues over time."""

    def __init__(
        self,
        view: LiveView,
        feed: LiveFeed,
        queues: QueueReader,
        *,
        service: str | None,
        sort: Sort,
    ) -> None:
        """Create the screen.

        Args:
            view: The live instances.
            feed: The feed of the view.
            queues: The reader of the queues.
            service: Name of the service to show. None: all services.
            sort: Value by which the operations are sorted.
        """
        self._view, self._feed, self._queues, self._service = view, feed, queues, service
        self._measurements = Measurements()
        self.sort: Sort = sort
        self._services: Sequence[ServiceSummary] = []
        self._seen = 0
        self._fresh_at = "-"
        """Time of the last values without an error."""

    def update(self) -> None:
        """Record the last answers of the view. Call this method after each round."""
        if self._view.changes == self._seen:
            return  # A redraw for a new time or size must not cost the time of a summary.
        self._seen = self._view.changes
        instances = self._view.instances(self._service)
        self._measurements.record(instances)
        self._services = summarize_services(instances, self._measurements)

    def render(
        self, console: Console, *, height: int | None = None, keys: str = ""
    ) -> RenderableType:
        """Return the screen.

        Args:
            console: The console on which the screen is shown.
            height: Maximum number of lines. None: no limit.
            keys: Text about the keys, for the second line. Empty: no such line.
        """
        self.update()
        services = self._services
        head = list(self._head(services, keys))
        report = self._queues.report
        ready = {queue.name: queue.ready for queue in report.queues} if report else {}
        operations = operation_rows(services, self.sort, ready)
        queues = queue_rows(report, queues_of(self._view.live())) if report else []
        space = None if height is None else max(2 * MIN_ROWS, height - len(head) - 2 * TABLE_LINES)
        first, second = share(space, len(operations), len(queues))
        if height is not None:
            for line in head:  # a folded line would push rows out of the screen
                line.no_wrap, line.overflow = True, "ellipsis"
        parts: list[RenderableType] = [*head]
        if operations:
            shown = important_rows(operations, first)
            parts += ["", operations_table(shown, console), *hidden(operations, shown)]
        if queues:
            longest = queues[:second]
            parts += ["", queues_table(longest, console), *hidden(queues, longest)]
        return Group(*parts)

    def _head(self, services: Sequence[ServiceSummary], keys: str) -> Sequence[Text]:
        live = [service for service in services if service.live]
        instances = sum(len(service.live) for service in live)
        rate = sum(service.rate or 0 for service in live)
        errors = sum(service.error_rate or 0 for service in live)
        facts = (
            f"{time.strftime('%H:%M:%S')}  {count_noun(len(live), 'service')}, "
            f"{count_noun(instances, 'instance')}, {format_rate(rate)}/s, "
            f"{format_rate(errors)} failed/s, by {self.sort}"
        )
        lines = [Text(facts, style="bold"), *([Text(keys, style="dim")] if keys else [])]
        if error := self._feed.error or self._queues.error:
            # Both have the same reason if the broker does not answer.
            lines.append(
                Text(one_line(f"values of {self._fresh_at}; error: {error}"), style="bold red")
            )
        else:
            self._fresh_at = time.strftime("%H:%M:%S")
        if not live and self._feed.error is None:
            lines.append(Text("no instance answers", style="yellow"))
        problems = list(problem_lines(services))
        lines += problems[:MAX_PROBLEMS]
        if len(problems) > MAX_PROBLEMS:
            more = count_noun(len(problems) - MAX_PROBLEMS, "more problem")
            lines.append(Text(f"{more}; see `bus services`", style="yellow"))
        lines += job_lines(each.record for service in live for each in service.live)
        if self._queues.report is not None and self._queues.report.without_management:
            lines.append(
                Text("without the management API: only queues of live instances", style="dim")
            )
        return lines


def share(space: int | None, first: int, second: int) -> tuple[int, int]:
    """Return how many rows of two tables fit into `space` lines. Each has at most one half.

    A table that needs less than its half leaves the other lines to the other table.
    """
    if space is None or first + second <= space:
        return first, second
    half = space // 2
    if first <= half:
        return first, space - first
    if second <= half:
        return space - second, second
    return space - half, half


def hidden(rows: Sequence[object], shown: Sequence[object]) -> Sequence[Text]:
    """Return a line with the number of rows that are not shown, if there are any."""
    more = len(rows) - len(shown)
    return [Text(f"and {more} more", style="dim")] if more else []
