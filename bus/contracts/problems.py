"""Problems: descriptions of a value that pydantic encodes with a loss."""

from typing import TypeAlias

__all__ = ["NOT_FINITE", "NOT_FINITE_KEY", "Problem", "inside"]

Problem: TypeAlias = tuple[str, str]
"""Path of a field, and a text about its value, without the value."""

NOT_FINITE = (
    "is not a finite number, and JSON has only finite numbers. Send None or a text instead of NaN "
    "or infinity"
)
NOT_FINITE_KEY = "has a key that is not a finite number. Write a finite number or a text as the key"


def inside(name: str, problem: Problem) -> Problem:
    """Return a problem of a part as a problem of the whole.

    Args:
        name: Name of the part: a field, `[<index>]`, or `[*]` for an entry of a dictionary.
        problem: Problem of the part.
    """
    path, text = problem
    if name == "__pydantic_extra__":  # its keys are names on the wire, not names of a class
        return path, text
    is_separate = path and not path.startswith("[")
    return f"{name}.{path}" if is_separate else f"{name}{path}", text
