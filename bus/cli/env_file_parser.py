"""The parser of a file `.env`: lines `NAME=value`, as python-dotenv reads them."""

import re
from collections.abc import Iterator, Sequence
from io import StringIO

from dotenv.parser import Binding, parse_stream

from bus.messaging.variable_values import strip_value

__all__ = ["InvalidLines", "parse_variables"]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
OWN_PREFIX = "BUS_"


class InvalidLines(ValueError):
    """Lines of a file are not `NAME=value`. The error has only the numbers of these lines."""

    def __init__(self, numbers: Sequence[int]) -> None:
        super().__init__(f"{len(numbers)} invalid lines")
        self.numbers = numbers


def parse_variables(text: str, prefix: str) -> dict[str, str]:
    """Return the variables of the file. An empty variable of the bus is left out.

    Nothing in a value is interpolated. If a file has a name twice, the last value counts.

    Args:
        text: The text of the file.
        prefix: Only lines with this text must be valid. The other lines are for other programs.

    Raises:
        InvalidLines: Lines are invalid.
    """
    bindings = [*parse_stream(StringIO(text.removeprefix("\ufeff"), newline=""))]
    wrong = [
        _line_of(binding)
        for binding in bindings
        if prefix in binding.original.string.upper() and not _is_valid(binding)
    ]
    if wrong:
        raise InvalidLines(wrong)
    return {
        name: value
        for name, value in dict(_variables(bindings)).items()
        if strip_value(value) or not name.upper().startswith(OWN_PREFIX)
    }


def _variables(bindings: list[Binding]) -> Iterator[tuple[str, str]]:
    for binding in bindings:
        if binding.key is not None and binding.value is not None and _is_valid(binding):
            yield binding.key, binding.value


def _is_valid(binding: Binding) -> bool:
    """Return True for a comment, an empty line, and `NAME=value`."""
    if binding.error:
        return False
    if binding.key is None:
        return True
    value = binding.value
    return NAME.fullmatch(binding.key) is not None and value is not None and "\0" not in value


def _line_of(binding: Binding) -> int:
    """Return the number of the line with the text. Empty lines before it belong to the binding."""
    text = binding.original.string
    before = text[: len(text) - len(text.lstrip())]
    return binding.original.line + len(re.findall(r"\r\n|\r|\n", before))
