"""An asker in memory: a test sets the live instances and their announcements."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Any

from bus.errors import BusError
from bus.messaging.control import ALL, Announcement, Answer, Question, Target
from bus.messaging.service_info import InstanceState

Records = Callable[[Question[Any]], Iterable[InstanceState]]


class FakeAsker:
    """Answers each question with the records of the live instances."""

    def __init__(self, records: Records | Iterable[InstanceState] = ()) -> None:
        self.records: Records
        self.serve(records)
        self.error: BusError | None = None
        """Error that questions and readers of announcements receive."""
        self.listening_error: BusError | None = None
        """Error that only readers of announcements receive."""
        self.asked: list[tuple[Question[Any], Target, int | None]] = []
        self.announced: asyncio.Queue[Announcement] = asyncio.Queue()
        self.listened, self.listeners = 0, 0
        """Number of streams that were read, and number of those that are open."""

    def serve(self, records: Records | Iterable[InstanceState]) -> None:
        """Set the records, or the function that returns the records for a question."""
        self.records = records if callable(records) else lambda _: records

    async def ask(
        self,
        question: Question[Any],
        target: Target = ALL,
        *,
        window: float = 1.0,
        expected: int | None = None,
    ) -> list[Answer[Any]]:
        """Return the answers of the instances that the target names.

        The answers arrive at once. Without `expected`, the call waits for the whole window.
        """
        await asyncio.sleep(0)
        self.asked.append((question, target, expected))
        if self.error is not None:
            raise self.error
        answers = [
            Answer(record=record, seconds=0.0)
            for record in self.records(question)
            if target.service in {None, record.service}
            and target.instance in {None, record.instance}
        ]
        if expected is None or len(answers) < expected:
            await asyncio.sleep(window)
        return answers[:expected]

    async def announcements(self) -> AsyncGenerator[Announcement, None]:
        """Yield the announcements that the test puts into the queue."""
        self.listened += 1
        self.listeners += 1
        try:
            while True:
                if error := self.error or self.listening_error:
                    raise error
                yield await self.announced.get()
        finally:
            self.listeners -= 1
