"""The nesting depth of a payload: pydantic decodes only about 200 levels, but encodes more."""

from pydantic import BaseModel, ValidationError
from pydantic_core import SchemaValidator

from bus.contracts.problems import Problem

__all__ = ["find_too_deep", "is_too_deep"]

MAX_LEVELS = 200
"""Maximum number of arrays and objects inside each other that the parser of pydantic accepts."""
ROUNDS = 4
"""Number of rounds that remove the innermost arrays and objects from a body."""
OTHER = bytes(set(range(256)).difference(b'[]{}"'))
TOO_DEEP = (
    f"is nested too deeply: receivers refuse JSON with more than {MAX_LEVELS} arrays and objects "
    f"inside each other. Write a value with fewer levels, such as a list of nodes with the ids of "
    f"their parents"
)
# This schema parses the whole body, but creates no Python objects.
_parser = SchemaValidator({"type": "typed-dict", "fields": {}})


def is_too_deep(body: bytes) -> bool:
    """Return True if a receiver cannot decode a valid JSON object because of its depth.

    The parser reads the body only if its brackets do not tell the depth. That is 20 times faster
    for a long body.

    Args:
        body: JSON that pydantic has encoded.
    """
    if _count_openings(body) <= MAX_LEVELS:
        return False
    rest = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, OTHER)
    for _ in range(ROUNDS):
        # The quotes of a text that contains brackets remain, so its brackets close no others.
        rest = rest.replace(b'""', b"").replace(b"{}", b"").replace(b"[]", b"")
    if _count_openings(rest) <= MAX_LEVELS - 2 * ROUNDS:
        return False
    try:
        _parser.validate_json(body)
    except ValidationError as error:
        return error.errors(include_url=False, include_input=False)[0]["type"] == "json_invalid"
    return False


def _count_openings(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


def find_too_deep(message: BaseModel, model: type[BaseModel]) -> Problem:
    """Return the first field that is nested too deeply, in a message with `is_too_deep`.

    Args:
        message: Encoded message.
        model: Class whose fields were encoded.
    """
    serializer = model.__pydantic_serializer__
    for name in message.__dict__:
        if is_too_deep(serializer.to_json(message, include={name}, by_alias=True)):
            return name, TOO_DEEP
    return ("[*]" if message.__pydantic_extra__ else ""), TOO_DEEP
