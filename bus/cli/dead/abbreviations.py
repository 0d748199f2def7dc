"""Ids and types that the user has abbreviated: the beginning of an id, or a type without version.

An abbreviation is completed before a command acts. So a command never moves or deletes a message
that only begins like the id that the user wrote.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bus.cli.dead.queues import browse_all
from bus.cli.output import say
from bus.errors import InvalidArgument
from bus.messaging.labels import UUID, one_line
from bus.messaging.ports.transport import Transport
from bus.operations.dead_letters import (
    EVERYTHING,
    BrowseResult,
    DeadLetter,
    ObservedValues,
    Selection,
)

__all__ = ["MIN_ID_LENGTH", "SelectedLetters", "browse_selected", "complete_selection"]

MIN_ID_LENGTH = 4
"""Minimum number of characters of an abbreviated id."""
MAX_SHOWN_CANDIDATES = 5
"""Maximum number of ids that the error about an ambiguous id shows."""
MAX_SHOWN_ID_LENGTH = 80
VERSIONED = re.compile(r".+\.v[0-9]+")
"""Pattern of a type with its version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelectedLetters:
    """The completed selection, and the dead letters that match it."""

    selection: Selection
    result: BrowseResult


async def browse_selected(
    transport: Transport, queues: Sequence[str], selection: Selection, *, scan: int
) -> SelectedLetters:
    """Browse the queues once, and return the dead letters that match the completed selection.

    Raises:
        InvalidArgument: An abbreviation is ambiguous or too short.
    """
    if not _may_be_abbreviated(selection):
        result = await browse_all(transport, queues, selection, scan=scan)
        return SelectedLetters(selection=selection, result=result)
    result = await browse_all(transport, queues, EVERYTHING, scan=scan)
    selection, seen = complete(selection, result), ObservedValues()
    for letter in result.letters:
        seen.note(letter, selection)
    letters = tuple(letter for letter in result.letters if selection.fits(letter))
    result = replace(result, letters=letters, matching=len(letters), seen=seen)
    return SelectedLetters(selection=selection, result=result)


async def complete_selection(
    transport: Transport, queues: Sequence[str], selection: Selection, *, scan: int
) -> Selection:
    """Return the selection with full ids and types. Read the queues only if one is abbreviated.

    Raises:
        InvalidArgument: An abbreviation is ambiguous or too short.
    """
    if not _may_be_abbreviated(selection):
        return selection
    return complete(selection, await browse_all(transport, queues, EVERYTHING, scan=scan))


def complete(selection: Selection, scanned: BrowseResult) -> Selection:
    """Return the selection with the full ids and types of the scanned dead letters.

    An id or type without a match stays as it is, so that the command can report it. A completed id
    is printed on standard error.

    Args:
        selection: Selection of the user.
        scanned: All dead letters that were read.

    Raises:
        InvalidArgument: An abbreviation is ambiguous or too short. Or some dead letters were not
            read, so that the id may be ambiguous.
    """
    letters, not_scanned = scanned.letters, scanned.not_scanned
    correlation_id = selection.correlation_id
    if correlation_id is not None:
        correlations = {(letter.correlation_id, "") for letter in letters}
        correlation_id = _full_id("correlation id", correlation_id, correlations, not_scanned)
    # Two senders can use the same id, but an abbreviation must mean one message.
    messages = {(letter.id, letter.envelope.source) for letter in letters}
    return replace(
        selection,
        ids=frozenset(_full_id("id", id_, messages, not_scanned) for id_ in selection.ids),
        types=frozenset(_full_type(type_, letters) for type_ in selection.types),
        correlation_id=correlation_id,
    )


def _may_be_abbreviated(selection: Selection) -> bool:
    ids = [*selection.ids, *filter(None, [selection.correlation_id])]
    return not (all(map(UUID.fullmatch, ids)) and all(map(VERSIONED.fullmatch, selection.types)))


def _full_id(noun: str, given: str, known: set[tuple[str, str]], not_scanned: int) -> str:
    """Return the only id in `known` that begins with `given`, or `given` if there is none.

    Args:
        noun: Name of the id in errors.
        given: Text of the user. It can be a full id.
        known: Ids of the scanned dead letters, each with its sender.
        not_scanned: Number of dead letters that were not read.
    """
    found = sorted(message for message in known if message[0].startswith(given))
    if not found or any(id_ == given for id_, _ in found):
        return given
    shown = repr(one_line(given))
    if len(given) < MIN_ID_LENGTH:
        raise InvalidArgument(
            f"{noun} {shown} is too short. Write at least {MIN_ID_LENGTH} characters."
        )
    if len(found) > 1:
        raise InvalidArgument(
            f"{noun} {shown} is ambiguous: {_list_candidates(found)}. Write more characters."
        )
    if not_scanned:
        raise InvalidArgument(
            f"{noun} {shown} may be ambiguous, because {not_scanned} more dead letters were not "
            "scanned. Write the full id, or scan more with --scan."
        )
    full = found[0][0]
    say(f"{noun} {shown} is {one_line(full)}")
    return full


def _list_candidates(found: Sequence[tuple[str, str]]) -> str:
    """Return the first ids, and the sender of each id that several senders have used."""
    ids = [id_ for id_, _ in found]
    texts = [
        f"{one_line(id_[:MAX_SHOWN_ID_LENGTH])}"
        + (f" from {one_line(source[:MAX_SHOWN_ID_LENGTH])}" if ids.count(id_) > 1 else "")
        for id_, source in found[:MAX_SHOWN_CANDIDATES]
    ]
    more = len(found) - len(texts)
    return f"{', '.join(texts)}{f' and {more} more' if more else ''}"


def _full_type(given: str, letters: Iterable[DeadLetter]) -> str:
    """Return the only type of the dead letters with this name, or `given` if there is none."""
    types = {letter.type for letter in letters}
    found = sorted(
        type_ for type_ in types if type_.rpartition(".v")[0] == given and VERSIONED.match(type_)
    )
    if given in types or not found:
        return given
    if len(found) > 1:
        versions = ", ".join(map(one_line, found[:MAX_SHOWN_CANDIDATES]))
        raise InvalidArgument(
            f"type {one_line(given)} has several versions among these dead letters: {versions}. "
            "Pass --type with the version, once for each version."
        )
    return found[0]
