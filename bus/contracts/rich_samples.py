"""Rich samples: variants of a sample in which the loss of a serializer is visible.

A serializer such as a mask can leave a short text as it is. The variants have no digits after a
point and no parts of a second, because a serializer may round on purpose.
"""

from typing import Any

__all__ = ["rich_samples"]

TEXTS = (" Zoë.Müller@Example.org\nB ", "Zoe.Mueller@Example.org", "AbcdefghIjkl", "123456789012")
"""Texts that replace a text of the sample. A validator can refuse some of them."""
LONG = {"PT90S": "P2DT3H4M5S"}
"""Longer value of other samples."""
NUMBERS = (-7, 1234567)
ORDER = "cAbed"
"""Ends of the texts in a list, which is neither sorted nor without upper case."""


def rich_samples(sample: Any) -> list[Any]:
    """Return variants of a JSON sample, without the sample itself.

    Args:
        sample: JSON value from `sample_json`.
    """
    variants = [_vary(sample, text, number) for text in TEXTS for number in NUMBERS]
    distinct: list[Any] = []
    for variant in variants:
        if variant != sample and variant not in distinct:
            distinct.append(variant)
    return distinct


def _vary(value: Any, text: str, number: int) -> Any:
    if isinstance(value, str):
        return text if set(value) == {"a"} else LONG.get(value, value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number
    if isinstance(value, dict):
        return {key: _vary(part, text, number) for key, part in value.items()}
    if isinstance(value, list):
        if len(value) == 1:
            return [_vary(value[0], f"{text}{end}", number - ord(end)) for end in ORDER]
        return [_vary(part, text, number) for part in value]
    return value
