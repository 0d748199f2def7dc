"""Digests of payload schemas, by which an operator compares the contracts of two processes."""

import hashlib
import json
from functools import lru_cache
from typing import Any

from pydantic import BaseModel

from bus.contracts.schema import schema_of

__all__ = ["schema_digest"]

MAX_DIGESTS = 1_000
"""Maximum number of digests that are kept."""
_TEXTS = frozenset({"title", "description"})


@lru_cache(MAX_DIGESTS)
def schema_digest(model: type[BaseModel], *, optional: bool = False) -> str:
    """Return the SHA-256 of a class's JSON schema, in hexadecimal.

    Two processes have the same digest if their classes have the same fields, types and limits.
    Texts that only describe a field do not count. Another version of pydantic can write another
    schema for the same class.

    Args:
        model: Class of the message.
        optional: True if null is also valid.

    Returns:
        The digest. It is empty if a JSON schema cannot express the class.
    """
    schema = schema_of(model, optional=optional)
    if schema is None:
        return ""
    text = json.dumps(_without_texts(schema), sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def _without_texts(part: Any) -> Any:
    """Return a schema without its titles and descriptions. A field can have one of these names."""
    if isinstance(part, dict):
        return {
            name: _without_texts(value)
            for name, value in part.items()
            if not (name in _TEXTS and isinstance(value, str))
        }
    return [_without_texts(each) for each in part] if isinstance(part, list) else part
