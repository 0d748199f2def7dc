"""`bus dead import`: put exported dead letters back."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from bus.cli.audit import audited
from bus.cli.dead.export_file import ExportedLetter, ExportReader
from bus.cli.dead.messages import count_letters
from bus.cli.dead.options import AsJson
from bus.cli.dead.queues import run
from bus.cli.output import print_json, say
from bus.errors import BusError, NotFound, ResourceExhausted
from bus.messaging.ports.transport import Accepted, Transport
from bus.messaging.topology.addresses import Address, dead_letter_address, replay_address
from bus.messaging.topology.names import dead_letter_queue, work_queue

__all__ = ["import_"]

SEND_TIMEOUT = 10.0
"""Seconds to wait for the publisher confirm of an imported dead letter."""


def import_(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that `bus dead export` wrote.")
    ],
    *,
    from_line: Annotated[
        int,
        typer.Option(
            "--from-line",
            min=1,
            metavar="N",
            help="Begin with line N of the file, to continue an import that ended early.",
        ),
    ] = 1,
    as_json: AsJson = False,
) -> None:
    """Put exported dead letters back into their dead-letter queues.

    The command checks the complete file before it sends the first dead letter. If the import ends
    early, the command prints which lines were put back, and how to continue. If an exported dead
    letter is still in its dead-letter queue, it is in that queue twice after the import. To move
    the imported dead letters to their work queues, use `bus dead replay`.
    """
    importing = Import(from_line)
    try:
        with ExportReader(file, first_line=from_line) as letters:

            async def work(transport: Transport, _: list[str]) -> None:
                await importing.send(transport, letters)

            run(work, None, [])
    except BusError as error:
        error.args = (f"{str(error).removesuffix('.')}. {importing.outcome()}",)
        raise
    except BaseException:
        say(importing.outcome())
        raise
    finally:  # Write the audit record even if the import was interrupted.
        if importing.sent:
            audited("imported", file=str(file.absolute()), letters=importing.sent)
    if as_json:
        print_json({"file": str(file), "letters": importing.sent}, compact=True)
        return
    say(f"put back {count_letters(importing.sent)}")


class Import:
    """State of an import: the lines that were put back."""

    def __init__(self, first_line: int) -> None:
        self.sent = 0
        """Number of dead letters that the broker has confirmed."""
        self._first = first_line
        self._next = first_line
        self._uncertain = False

    async def send(self, transport: Transport, letters: Iterable[ExportedLetter]) -> None:
        """Send the dead letters one after the other, each after the confirm of the last one.

        Raises:
            NotFound: The broker has no dead-letter queue for a dead letter.
            ResourceExhausted: The broker refused a dead letter.
            BusError: The connection was lost, or no confirm arrived in time.
        """
        for letter in letters:
            self._next, self._uncertain = letter.line, True
            try:
                outcome = await transport.send(
                    letter.message, address_of(letter.queue), timeout=SEND_TIMEOUT
                )
            except BusError as error:
                self._uncertain = error.maybe_executed
                raise
            self._uncertain = False
            if not isinstance(outcome, Accepted):
                raise _refusal(letter, outcome.reason)
            self.sent += 1
            self._next = letter.line + 1

    def outcome(self) -> str:
        """Return sentences about the lines that were put back, and about the next command."""
        last = self._next - 1
        lines = f"line {last} was" if last == self._first else f"lines {self._first} to {last} were"
        done = f"{lines[0].upper()}{lines[1:]} put back." if self.sent else "Nothing was put back."
        if self._uncertain:
            return (
                f"{done} Line {self._next} may have been put back, too. Search for its id with "
                f"`bus dead list`, and continue with --from-line {self._next} or {self._next + 1}."
            )
        return f"{done} Continue with --from-line {self._next}." if self.sent else done


def address_of(queue: str) -> Address:
    """Return the address of the dead letters of a queue.

    Unroutable messages return to their queue by the return exchange of the service, as before. No
    work queue has the name `<service>.unroutable`, so the exchange cannot route the message. A
    broker user needs no further right for this address.
    """
    is_unroutable = work_queue(dead_letter_queue(queue)) is None
    return replay_address(queue) if is_unroutable else dead_letter_address(queue)


def _refusal(letter: ExportedLetter, reason: str) -> BusError:
    """Return the error for a dead letter that the broker did not accept."""
    if reason == "NO_ROUTE":
        return NotFound(
            f"line {letter.line}: queue {letter.queue} has no dead-letter queue on this broker. "
            "Start its service, which declares it."
        )
    return ResourceExhausted(
        f"line {letter.line}: the broker refused a dead letter of queue {letter.queue}: {reason}."
    )
