"""The metrics and labels that a query in PromQL names."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Selector", "labels_of", "selectors"]

SELECTOR = re.compile(r"(?P<name>[a-zA-Z_:][\w:]*)?\{(?P<matchers>[^{}]*)\}")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')
RANGE = re.compile(r"\[[^\]]*\]|\boffset\s+-?[$\w]+")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
WORD = re.compile(r"(?<![\w.:])([a-zA-Z_:][\w:]*)(?![\w:]*\s*\()")
KEYWORDS = frozenset(
    {"and", "or", "unless", "offset", "by", "without", "on", "ignoring"}
    | {"group_left", "group_right", "bool", "inf", "nan"}
)


@dataclass(frozen=True)
class Selector:
    """A selector of series. `name` is empty if the selector matches the name by a pattern."""

    name: str
    text: str
    labels: tuple[str, ...]


def selectors(expr: str) -> Iterator[Selector]:
    """Yield each selector of a query, with and without braces."""
    for found in SELECTOR.finditer(expr):
        labels = tuple(label for label, _ in MATCHER.findall(found["matchers"]))
        yield Selector(found["name"] or "", found[0], labels)
    rest = RANGE.sub(" ", TEXT.sub(" ", SELECTOR.sub(" 0 ", expr)))
    rest = re.sub(r"\b\d[\w.]*", " ", GROUPING.sub(" ", rest))
    for name in WORD.findall(rest):
        if name.lower() not in KEYWORDS:
            yield Selector(name, name, ())


def labels_of(expr: str) -> set[str]:
    """Return the labels by which a query groups and matches."""
    without_selectors = TEXT.sub(" ", SELECTOR.sub(" 0 ", expr))
    grouped = {
        label.strip() for found in GROUPING.findall(without_selectors) for label in found.split(",")
    }
    matched = {label for selector in selectors(expr) for label in selector.labels}
    return (grouped | matched) - {"", "__name__"}
