"""The command `bus watch`."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.console import Console

from bus.cli.audit import audited, begin_audit, revealing
from bus.cli.broker import signals
from bus.cli.options import duration
from bus.cli.output import print_json, say, table_console
from bus.cli.queue_watch import CLOSED_PIPE_EXIT_CODE, stop_when_closed
from bus.cli.watch.lines import Seen, header_lines, line, payload_text, to_json
from bus.cli.watch.printer import Printer
from bus.cli.watch.session import Watch, WatchOptions
from bus.cli.watch.signatures import SignatureCheck, load_check
from bus.contracts.contract import Kind
from bus.errors import BusError
from bus.messaging.plurals import count_noun
from bus.runtime.security import cipher_from_settings
from bus.security.encryption import ENCRYPTION, PayloadCipher
from bus.settings import Settings, load_settings
from bus.transports.rabbitmq.tap import TappedMessage

__all__ = ["command"]

MAX_PATTERN_BYTES = 255
PATTERN = re.compile(r"([\w-]+|\*|#)(\.([\w-]+|\*|#))*", re.ASCII)
VERSIONED = re.compile(r".*(\.v\d+|[*#])")
"""Pattern of a topic pattern that can match a type. Each type ends with its version."""
MAX_CHECKED_BYTES = 1024 * 1024
"""Maximum bytes of a payload of which the signature is checked."""


def pattern(text: str) -> str:
    """Check a topic pattern.

    Raises:
        typer.BadParameter: The text is not a topic pattern, or can match no type.
    """
    if len(text) > MAX_PATTERN_BYTES or PATTERN.fullmatch(text) is None:
        raise typer.BadParameter(
            f"{text!r} is not a topic pattern. Write words with dots between them, '*' for one "
            "word, or '#' for any number of words, such as 'library.#'."
        )
    if VERSIONED.fullmatch(text) is None:
        raise typer.BadParameter(
            f"{text!r} matches no type, because each type ends with its version. "
            f"Write '{text}.#' in quotes."
        )
    return text


@dataclass(frozen=True, slots=True)
class Display:
    """The functions that turn a tapped message into output."""

    check: SignatureCheck
    show: Callable[[Seen], None]
    cipher: PayloadCipher | None
    """Cipher of payloads. None if payloads are hidden."""

    def prepare(self, message: TappedMessage) -> Seen:
        """Check the signature, and decrypt the payload if it is shown."""
        envelope = message.envelope
        signature = self.check(envelope)
        body = None
        if self.cipher is not None:
            try:
                is_encrypted = ENCRYPTION in envelope.headers
                body = (self.cipher.decrypt(envelope) if is_encrypted else envelope).body
            except BusError:
                body = envelope.body  # without the key, the payload is shown as it was sent
        hidden = envelope.replace(body=b"", authorization=None, proof=None, expiry_override=None)
        return Seen(envelope=hidden, size=message.size, signature=signature, body=body)


def command(
    pattern_: Annotated[
        str,
        typer.Argument(
            metavar="PATTERN",
            parser=pattern,
            help="Topic pattern of the types, in quotes. '*' is one word between dots, and '#' is "
            "any number of words: 'library.#', '*.scanned.v1'.",
        ),
    ] = "#",
    *,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="request|event",
            show_default=False,
            help="Only messages of this kind. The option is repeatable. Default: all kinds.",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", show_default=False, help="End after N messages."),
    ] = None,
    for_: Annotated[
        float | None,
        typer.Option(
            "--for",
            metavar="TIME",
            parser=duration,
            show_default=False,
            help="End after this time: 30s, 5m or 1h.",
        ),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Also show headers. Never shows a token.")
    ] = False,
    reveal: Annotated[
        bool,
        typer.Option("--reveal", help="Also show payloads. The audit log records each message."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON for each message.")
    ] = False,
) -> None:
    """Show events and requests while services send them, without their payloads.

    The command receives copies through a temporary queue, so no service misses a message. The queue
    is bounded: if it is full, it drops its oldest messages, and the command prints their number.
    The queue ends with the command. Only the first attempt of a message is shown, because retries
    use other exchanges. Replies are never shown.

    Requests are shown only if a queue of a service exists for them. The names of these queues come
    from the management API. Jobs are never shown, because the queue of this command could be the
    only receiver of a job: `bus trace` and `bus queues` show them. BUS_URL must have the
    administrator's user, because no service may receive messages of another service.

    Senders are not verified by RabbitMQ. Each line ends with the state of the signature: verified,
    invalid, unsigned, or unverified if this command has no keys.
    """
    settings = load_settings()
    kinds = select_kinds(kind or [])
    operator = revealing(settings) if reveal else {}
    begin_audit(settings)
    check = asyncio.run(load_check(settings))
    if reveal:
        audited("watch with payloads", pattern=pattern_, kinds=", ".join(kinds), **operator)
    display = Display(
        check=check,
        show=show_json if as_json else text_printer(table_console(), verbose=verbose),
        cipher=cipher_from_settings(settings) if reveal else None,
    )
    max_body_bytes = settings.max_message if reveal else MAX_CHECKED_BYTES * check.needs_body
    options = WatchOptions(pattern=pattern_, kinds=kinds, max_body_bytes=max_body_bytes)
    asyncio.run(
        run_watch(settings, options, audit_shown(display, operator), limit=limit, seconds=for_)
    )


def select_kinds(names: list[str]) -> tuple[Kind, ...]:
    """Return the kinds with these names, or all kinds.

    Raises:
        typer.BadParameter: A name is not a kind that can be watched.
    """
    known: tuple[Kind, ...] = ("request", "event")
    if "job" in names:
        raise typer.BadParameter(
            "jobs cannot be watched, because a watch could be the only receiver of a job. Use "
            "`bus trace ID` for one job, or `bus queues` for all."
        )
    unknown = [name for name in names if name not in known]
    if unknown:
        raise typer.BadParameter(f"{unknown[0]!r} is not a kind. Write request or event.")
    return tuple(name for name in known if not names or name in names)


def audit_shown(display: Display, operator: dict[str, str]) -> Display:
    """Return a display that records each shown payload in the audit log."""
    if display.cipher is None:
        return display

    def show(seen: Seen) -> None:
        envelope = seen.envelope
        audited("payload revealed", message_id=envelope.id, type=envelope.type, **operator)
        display.show(seen)

    return Display(check=display.check, show=show, cipher=display.cipher)


async def run_watch(
    settings: Settings,
    options: WatchOptions,
    display: Display,
    *,
    limit: int | None,
    seconds: float | None,
) -> None:
    """Watch until Ctrl-C, SIGTERM, the limit, the end of the time, or the end of the pipe.

    Raises:
        typer.Exit: The reader of the output has closed the pipe.
        BusError: The tap cannot be created.
    """
    received = 0
    printer = Printer(display.show)
    with signals() as stop, stop_when_closed(stop) as is_closed:

        def take(message: TappedMessage) -> None:
            nonlocal received
            if limit is None or received < limit:
                received += 1
                printer.add(display.prepare(message))
            if received == limit:
                stop.set()

        watch = Watch(settings, options, take, say)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, stop.set)
        try:
            await watch.run(stop)
        finally:
            printer.close()
    if is_closed():
        raise typer.Exit(CLOSED_PIPE_EXIT_CODE)
    say(describe_end(received, printer.dropped, watch))


def describe_end(received: int, dropped: int, watch: Watch) -> str:
    """Return the last line: the number of messages, and whether messages were missed."""
    missed = watch.missed + dropped
    gap = ", and an unknown number while the connection was lost" if watch.has_gap else ""
    return f"{count_noun(received, 'message')}, {missed or 'none'} missed{gap}"


def show_json(seen: Seen) -> None:
    """Print a message as one line of JSON."""
    print_json(to_json(seen), compact=True)


def text_printer(console: Console, *, verbose: bool) -> Callable[[Seen], None]:
    """Return a function that prints a message as lines of text."""

    def show(seen: Seen) -> None:
        texts = [line(seen)]
        if verbose:
            texts += header_lines(seen)
        if seen.body is not None:
            texts.append(payload_text(seen.body))
        for text in texts:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    return show
