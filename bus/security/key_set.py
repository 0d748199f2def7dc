"""The key set: the public keys of all services and operators, by key id.

Two services can publish keys with the same id, by mistake or on purpose. Neither of them loses its
key, because a signature is checked with the keys of the issuer that the token names.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from bus.errors import ConfigurationError
from bus.security.keys import Key, read_jwk

__all__ = ["MAX_KEYS_PER_ID", "KeySet", "read_key_set"]

MAX_KEYS_PER_ID = 4
"""Maximum number of keys of one owner with the same id. Each can cost a check of a signature."""
MAX_EXACT_DIGITS = 20
"""Maximum number of digits of a number that is read exactly. Each time of a key has fewer digits.

Python's `int` refuses thousands of digits, and one entry would then make the whole text invalid.
"""
ENTRY_DEPTH, MAX_DEPTH = 3, 32
"""Level of brackets that contains one entry, and the maximum level.

The key set is level 1, and its list of keys is level 2.
"""
STRING_OR_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The public keys of a JSON Web Key Set."""

    keys: Mapping[str, tuple[Key, ...]]
    """The valid keys by their id. If several keys have the same id, all of them are in use."""
    faults: tuple[str, ...]
    """A text for each key that is invalid, and is ignored."""
    shared_ids: tuple[str, ...]
    """A text for each id that several keys have."""
    copies: tuple[str, ...]
    """A text for each key that has several ids."""


def read_key_set(text: str | bytes) -> KeySet:
    """Return the keys of a JSON Web Key Set.

    An invalid key is skipped, and the valid keys remain usable.

    Raises:
        ConfigurationError: The text is not a JSON Web Key Set.
    """
    try:
        key_set = _parse(text if isinstance(text, str) else text.decode(json.detect_encoding(text)))
    except (ValueError, RecursionError):
        raise ConfigurationError("the key set is not JSON") from None
    jwks = key_set.get("keys") if isinstance(key_set, dict) else None
    if not isinstance(jwks, list):
        raise ConfigurationError(
            'the key set is not a JSON Web Key Set. Write it as {"keys": […]}.'
        )
    keys: dict[str, list[Key]] = {}
    numbers: Counter[str] = Counter()
    faults: list[str] = []
    for number, jwk in enumerate(jwks, 1):
        try:
            key = read_jwk(jwk)
            _add_key(keys.setdefault(key.id, []), key)
        except ConfigurationError as error:
            faults.append(f"key {number}: {error}")
        else:
            numbers[key.id] += 1
    return KeySet(
        keys=_revoke_copies(keys),
        faults=tuple(faults),
        shared_ids=tuple(
            f"{count} keys have the id {kid}; they belong to {_describe_owners(keys[kid])}. "
            "Give each key its own id."
            for kid, count in numbers.items()
            if count > 1
        ),
        copies=tuple(_describe_copies(entries) for entries in _find_copies(keys)),
    )


def _parse(text: str) -> Any:
    """Return the value of a JSON text. An entry that Python cannot read becomes null.

    Raises:
        ValueError: The text is not JSON.
        RecursionError: The text has brackets without an end.
    """
    try:
        return DECODER.decode(text)
    except RecursionError:
        return DECODER.decode(_drop_deep_entries(text))


def _drop_deep_entries(text: str) -> str:
    """Replace each entry that is nested more than `MAX_DEPTH` levels deep with null.

    The value of another member of the key set is replaced as well. The bus ignores those values.
    """
    kept: list[str] = []
    depth = entry = end = 0
    is_deep = False
    for token in STRING_OR_BRACKET.finditer(text):
        if token[0] in "[{":
            depth += 1
            if depth == ENTRY_DEPTH:
                entry, is_deep = token.start(), False
            is_deep = is_deep or depth > MAX_DEPTH
        elif token[0] in "]}":
            if depth == ENTRY_DEPTH and is_deep:
                kept += text[end:entry], "null"
                end, is_deep = token.end(), False
            depth -= 1
    return "".join(kept) + text[end:]


def _read_int(digits: str) -> float:
    """Return an integer exactly if it is short, and otherwise approximately."""
    return int(digits) if len(digits) <= MAX_EXACT_DIGITS else float(digits)


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any] | None:
    """Return a JSON object, or None if it has a duplicate name.

    Another program could read the first of two `iss`, and this one the second.
    """
    members = dict(pairs)
    return members if len(members) == len(pairs) else None


DECODER = json.JSONDecoder(object_pairs_hook=_members, parse_int=_read_int)


def _add_key(known: list[Key], key: Key) -> None:
    """Add a key to the keys with the same id."""
    own = [each for each in known if (each.owner, each.role) == (key.owner, key.role)]
    for each in own:
        if each.thumbprint == key.thumbprint:
            known[known.index(each)] = _combine(each, key)
            return
    if len(own) == MAX_KEYS_PER_ID:
        raise ConfigurationError(
            f"{key.owner} already has {MAX_KEYS_PER_ID} keys with the id {key.id}. "
            "Give each key its own id."
        )
    known.append(key)


def _combine(first: Key, second: Key) -> Key:
    """Return one key for two entries of the same key.

    The stricter times count. A forgotten copy of an entry must not make a revoked key valid again.
    """
    return replace(
        first,
        not_before=max(first.not_before, second.not_before),
        retired_at=_earliest(first.retired_at, second.retired_at),
        compromised_since=_earliest(first.compromised_since, second.compromised_since),
    )


def _revoke_copies(keys: Mapping[str, list[Key]]) -> dict[str, tuple[Key, ...]]:
    """Return the keys. A key that is compromised under one id is compromised under all its ids.

    The other times are not combined. If a key gets a new id, its old id can be retired.
    """
    since = {
        id(entry): _earliest(*(each.compromised_since for each in entries))
        for entries in _find_copies(keys)
        for entry in entries
    }
    return {
        kid: tuple(
            replace(key, compromised_since=since[id(key)]) if id(key) in since else key
            for key in known
        )
        for kid, known in keys.items()
        if known
    }


def _find_copies(keys: Mapping[str, list[Key]]) -> list[list[Key]]:
    """Return the entries of each key that one owner has published under several ids."""
    entries: dict[tuple[object, ...], list[Key]] = {}
    for key in chain.from_iterable(keys.values()):
        entries.setdefault((key.owner, key.role, key.thumbprint), []).append(key)
    return [copies for copies in entries.values() if len(copies) > 1]


def _describe_copies(entries: list[Key]) -> str:
    return (
        f"{_describe_owners(entries)} has one key under the ids "
        f"{' and '.join(sorted(each.id for each in entries))}. "
        "A revocation of one counts for all of them. Remove the entries that nothing uses."
    )


def _earliest(*moments: float | None) -> float | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _describe_owners(keys: list[Key]) -> str:
    return " and ".join(sorted({f"the {key.role} {key.owner}" for key in keys}))
