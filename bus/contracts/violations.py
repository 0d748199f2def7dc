"""Sentences that describe why a payload does not match its class.

A sentence has names of fields and rules, and limits that the class declares. It never has a value
or a key of the payload, nor the text of a user's validator. All limits come from the schema,
because a user's validator chooses the context of its errors.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from typing_extensions import override

from bus.contracts.locations import Location, Node, find_location
from bus.contracts.similar_names import similar_names
from bus.contracts.violation_texts import GENERIC, SENTENCES, Sentence, is_pydantic_rule

__all__ = ["describe_violation", "describe_violations"]

MAX_FINDINGS = 5
MAX_EXAMINED = 50
"""Maximum number of pydantic's errors that are read. Errors of one union make one finding."""
MAX_FINDING_LENGTH = 200
MAX_PATH_LENGTH = 100
MAX_CHOICES = 10
"""Maximum number of permitted values or names in a finding."""
MIN_NAME_SIMILARITY = 0.75
"""Minimum similarity of an unknown field to a field, from 0 to 1.

A less similar name is hidden, because it could be confidential. It may come from data.
"""
FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
POSITION = re.compile(r"line \d+ column \d+$")
DEPTH_ERROR = "recursion limit exceeded"
"""Text of pydantic for JSON with too many arrays and objects inside each other."""
UNKNOWN_FIELD = frozenset({"extra_forbidden", "unexpected_keyword_argument"})
TAG_RULES = frozenset({"union_tag_invalid", "union_tag_not_found"})
PAYLOAD = "the payload"


@dataclass(frozen=True, slots=True)
class _Finding:
    """A finding at one place. The problem is a phrase without subject, such as `is missing`."""

    location: Location
    problem: str

    @property
    def is_question(self) -> bool:
        """True if the finding is about an unknown field and suggests a name."""
        return self.problem.startswith("unknown field ") and ", did you mean " in self.problem

    @override
    def __str__(self) -> str:
        path = _shorten_path(self.location.path)
        text = f"a key {self.problem}" if self.location.is_key else self.problem
        if self.problem.startswith("unknown field"):
            return f"{path}: {text}" if path else text
        return f"{path}: {text}" if path else f"{PAYLOAD} {text}"


def describe_violations(schema: object, error: ValidationError) -> str:
    """Return one sentence with the invalid fields, and the rule that each field violates.

    Args:
        schema: Core schema of the class.
        error: Error of the validation.

    Returns:
        A text such as `customer_id: must be a UUID; unknown field couponn, did you mean coupon?`.
        It describes at most five findings, and gives the number of further ones.
    """
    details = error.errors(include_url=False, include_input=False)
    findings = [_read_finding(schema, detail) for detail in details[:MAX_EXAMINED]]
    merged = _merge_unions(findings)
    # A question is last, so that the sentence ends with its question mark.
    merged.sort(key=lambda finding: finding.is_question)
    counts = Counter(map(str, merged))
    texts = [_shorten(text, times) for text, times in counts.items()]
    more = len(texts) - MAX_FINDINGS + max(0, len(details) - MAX_EXAMINED)
    if more > 0:
        return f"{'; '.join(texts[:MAX_FINDINGS])}; and {more} more."
    return f"{'; '.join(texts)}{'?' if merged[-1].is_question else '.'}"


def describe_violation(schema: object, detail: Any) -> str:
    """Return the rule that one value violates, without the path, such as `must be a UUID`.

    Args:
        schema: Core schema of the class.
        detail: An item of `ValidationError.errors()`.
    """
    return _read_finding(schema, detail).problem


def _read_finding(schema: object, detail: Any) -> _Finding:
    kind, parts = detail["type"], detail["loc"]
    if kind in UNKNOWN_FIELD and parts:
        location = find_location(schema, parts[:-1])
        return _Finding(location, _describe_unknown_field(str(parts[-1]), location.field_names))
    location = find_location(schema, parts)
    if kind in TAG_RULES:
        return _read_tag(kind, location)
    return _Finding(location, _describe_problem(kind, location.nodes, detail.get("ctx") or {}))


def _describe_unknown_field(name: str, known: set[str]) -> str:
    """Return the name of an unknown field only if it is similar to the name of a field."""
    if FIELD_NAME.fullmatch(name):  # checked first, because a comparison of a long name is slow
        meant = similar_names(name, known, cutoff=MIN_NAME_SIMILARITY)[:1]
        if meant and _digits(name) <= _digits(meant[0]):
            return f"unknown field {name}, did you mean {meant[0]}"
    fields = _list_names(sorted(known)) if known else "none"
    return f"unknown field, whose name is not shown (known fields: {fields})"


def _describe_problem(kind: str, nodes: Sequence[Node], context: dict[str, Any]) -> str:
    if kind == "json_invalid":
        # The position is the only part of pydantic's text that can be shown without a value.
        error = str(context.get("error", ""))
        position = POSITION.search(error)
        problem = "is nested too deeply" if error.startswith(DEPTH_ERROR) else "is not valid JSON"
        return f"{problem}{f' ({position[0]})' if position else ''}"
    if kind in {"enum", "literal_error"}:
        return _describe_choices(nodes)
    if not is_pydantic_rule(kind) or kind in {"value_error", "assertion_error"}:
        return f"is not accepted by {_name_validator(nodes)}"
    sentence = SENTENCES.get(kind)
    if sentence is None:
        return GENERIC.format(rule=kind.replace("_", " "))
    return _describe_limit(sentence, nodes) if sentence.limit else sentence.text


def _describe_limit(sentence: Sentence, nodes: Sequence[Node]) -> str:
    limit = _find_limit(nodes, sentence.limit)
    if limit is None:
        return sentence.without_limit
    text = sentence.text.format(limit=limit)
    return text.removesuffix("s") if limit == "1" else text  # 1 item


def _find_limit(nodes: Iterable[Node], name: str) -> str | None:
    """Return the limit that the schema declares. Return None if it has none, or more than one."""
    values = [node[name] for node in nodes if node.get(name) is not None]
    limits = {str(getattr(value, "pattern", value)) for value in values}
    return limits.pop() if len(limits) == 1 else None


def _describe_choices(nodes: Iterable[Node]) -> str:
    choices: list[str] = []
    for node in nodes:
        values = node.get("expected") or [member.value for member in node.get("members", ())]
        choices += [_format_choice(getattr(value, "value", value)) for value in values]
    if not choices:
        return "must be one of the declared values"
    return f"must be {_list_choices(choices)}"


def _format_choice(value: object) -> str:
    """Return a declared value, as the sender writes it in JSON, but in single quotes."""
    return json.dumps(value) if value is None or isinstance(value, bool) else repr(value)


def _read_tag(kind: str, location: Location) -> _Finding:
    """Return the finding about the field that selects the type of a union."""
    union = next((node for node in location.nodes if node.get("type") == "tagged-union"), {})
    name = union.get("discriminator")
    if not isinstance(name, str):
        return _Finding(location, "matches none of its types")
    location.path = ".".join(filter(None, [location.path, name]))
    if kind == "union_tag_not_found":
        return _Finding(location, "is missing")
    return _Finding(location, f"must be {_list_choices(map(_format_choice, union['choices']))}")


def _name_validator(nodes: Iterable[Node]) -> str:
    """Return the name of the user's function that can have refused the value."""
    functions = [
        node["function"]["function"]
        for node in nodes
        if str(node.get("type")).startswith("function-")
    ]
    names = [
        getattr(function, "__name__", "")
        for function in functions
        if not getattr(function, "__module__", "").startswith("pydantic")
    ]
    names = list(dict.fromkeys(name for name in names if name.isidentifier()))
    if not names:
        return "its validator"
    return (
        f"the validator {names[0]}"
        if len(names) == 1
        else f"one of the validators {_list_names(names)}"
    )


def _merge_unions(findings: Sequence[_Finding]) -> list[_Finding]:
    """Merge the findings of each union into one, because the value must match only one type."""
    merged: list[_Finding] = []
    unions: dict[str, list[_Finding]] = {}
    for finding in findings:
        union = finding.location.union
        if union is None:
            merged.append(finding)
        elif union in unions:
            unions[union].append(finding)
        else:
            unions[union] = [finding]
            merged.append(finding)
    return [
        _merge_union(finding.location.union, unions[finding.location.union])
        if finding.location.union is not None
        else finding
        for finding in merged
    ]


def _merge_union(path: str, findings: Sequence[_Finding]) -> _Finding:
    rule = "must be "
    if all(
        finding.location.path == path and finding.problem.startswith(rule) for finding in findings
    ):
        alternatives = dict.fromkeys(finding.problem.removeprefix(rule) for finding in findings)
        return _Finding(Location(path), f"{rule}{_list_choices(alternatives)}")
    problems = dict.fromkeys(_describe_type(finding, path) for finding in findings)
    return _Finding(
        Location(path), f"matches none of its types ({'; or '.join([*problems][:MAX_CHOICES])})"
    )


def _describe_type(finding: _Finding, union: str) -> str:
    """Return why a value does not match one type of a union."""
    location = finding.location
    inner = location.path.removeprefix(union).lstrip(".")
    name = location.union_class
    problem = f"a key {finding.problem}" if location.is_key else finding.problem
    return ": ".join(filter(None, [name, inner, problem]))


def _list_choices(choices: Iterable[str]) -> str:
    shown = [*choices]
    if len(shown) > MAX_CHOICES:
        return f"one of {_list_names(shown)}"
    return " or ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))


def _list_names(names: Sequence[str]) -> str:
    more = len(names) - MAX_CHOICES
    return ", ".join(names[:MAX_CHOICES]) + (f" and {more} more" if more > 0 else "")


def _digits(name: str) -> set[str]:
    return {character for character in name if character.isdigit()}


def _shorten(text: str, times: int) -> str:
    shown = text if len(text) <= MAX_FINDING_LENGTH else f"{text[: MAX_FINDING_LENGTH - 1]}…"
    return f"{shown} ({times} times)" if times > 1 else shown


def _shorten_path(path: str) -> str:
    return path if len(path) <= MAX_PATH_LENGTH else f"…{path[1 - MAX_PATH_LENGTH :]}"
