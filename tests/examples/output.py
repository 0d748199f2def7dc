"""Comparison of the output that a page shows with the output that a command prints.

`…` matches any text. Two or more spaces match any number of them from two, because the widths of
columns differ. These parts differ from run to run, so they match any part of the same form:

- a time, a duration in ms, a latency in a table (`12ms`), the name of an instance, the broker's
  version and name, a frame's line number in the bus;
- an id (a UUID or its first 8 characters, or the id of a key). The same id on a page always stands
  for the same id of the run, also in the commands that the reader types.
"""

import re
from dataclasses import dataclass, field

ANYTHING = "…"
UUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
KEY_ID = r"[a-z][a-z-]*-\d{8}-[0-9a-f]{6}"
SHORT = r"(?<![\w-])[0-9a-f]{8}(?![\w-])"
ID = re.compile(f"{UUID}|{KEY_ID}|{SHORT}")
LIKE = {
    "broker": r"RabbitMQ \d[\d.]*, [\w-]+@[\w.-]+",
    "id": ID.pattern,
    "time": r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?",
    "clock": r"\d\d:\d\d:\d\d(?:\.\d+)?",
    "duration": r"\d+(?:\.\d+)? ms",
    "latency": r"\b\d+(?:\.\d+)?ms\b",
    "instance": r"[\w-]+-\d+-[0-9a-f]{12}\b",
    "spaces": r" {2,}",
    "frame": r"(?:(?<=\s)|(?<=\"))bus/[\w/]+\.py:\d+",
    "any": ANYTHING,
}
OTHER_FORMS = {"any": ".*", "latency": r"\d+(?:\.\d+)?m?s"}
"""Parts that match text of another form: a latency of a loaded machine can be seconds."""
VARIABLE = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in LIKE.items()))


@dataclass
class Output:
    """Ids of a page with the ids of the run for which they stand."""

    known: dict[str, str] = field(default_factory=dict)

    def matches(self, expected: str, line: str) -> bool:
        """Return True if a line of the run matches a line of the page, and remember its ids."""
        ids: list[str] = []
        pattern, end = "", 0
        for part in VARIABLE.finditer(expected):
            pattern += re.escape(expected[end : part.start()]) + self._pattern(part, ids)
            end = part.end()
        found = re.fullmatch(pattern + re.escape(expected[end:]), line.rstrip())
        if found is None:
            return False
        for shown, printed in zip(ids, found.groups(), strict=True):
            self._learn(shown, printed)
        return True

    def with_ids_of_the_run(self, command: str) -> str:
        """Return the command with the ids of the run in place of those of the page."""
        return ID.sub(lambda found: self.known.get(found[0], found[0]), command)

    def _pattern(self, part: re.Match[str], ids: list[str]) -> str:
        kind, text = part.lastgroup, part[0]
        if kind in OTHER_FORMS:
            return OTHER_FORMS[kind]
        if kind == "frame":
            return re.escape(text.rpartition(":")[0]) + r":\d+"
        if kind != "id":
            return f"(?:{LIKE[str(kind)]})"
        if text in self.known:
            return re.escape(self.known[text])
        if text in ids:
            return rf"\{ids.index(text) + 1}"
        ids.append(text)
        form = next(form for form in (UUID, KEY_ID, SHORT) if re.fullmatch(form, text))
        return f"({form})"

    def _learn(self, shown: str, printed: str) -> None:
        self.known[shown] = printed
        if re.fullmatch(UUID, shown):
            self.known.setdefault(shown[:8], printed[:8])
