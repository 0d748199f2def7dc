"""The texts of log messages, which must be complete without the fields of structured logging."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
LEVELS = {"debug", "info", "warning", "error", "critical", "exception", "log"}
WITHOUT_SUBJECT = "BUS_"
"""Beginning of messages whose subject is a setting, so they need no argument."""
AUDIT = "bus/cli/audit.py"
"""The audit log has a stable text for each action, and always a structured format."""


def log_calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted((ROOT / "bus").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in LEVELS
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
            ):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node


CALLS = {place: call for place, call in log_calls() if not place.startswith(AUDIT)}


def test_the_calls_are_found() -> None:
    assert len(CALLS) > 30


@pytest.mark.parametrize("place", CALLS)
def test_every_log_message_names_its_subject_in_its_text(place: str) -> None:
    call = CALLS[place]
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    text = call.args[1 if method == "log" else 0]
    assert isinstance(text, ast.Constant), "the text is constant, and is formatted lazily"
    assert isinstance(text.value, str)
    assert "%s" in text.value or text.value.startswith(WITHOUT_SUBJECT), "the text names a subject"


@pytest.mark.parametrize("place", CALLS)
def test_every_reason_in_the_fields_of_a_log_message_is_in_its_text_too(place: str) -> None:
    call = CALLS[place]
    reasons = [
        ast.unparse(value)
        for name, value in fields_of(call)
        if name == "why" and not isinstance(value, ast.Constant)
    ]
    texts = " ".join(ast.unparse(argument) for argument in call.args)
    for reason in reasons:
        assert reason.removeprefix("str(").removesuffix(")") in texts


def fields_of(call: ast.Call) -> Iterator[tuple[str, ast.expr]]:
    for keyword in call.keywords:
        for node in ast.walk(keyword.value):
            if isinstance(node, ast.Dict):
                yield from (
                    (key.value, value)
                    for key, value in zip(node.keys, node.values, strict=True)
                    if isinstance(key, ast.Constant) and isinstance(key.value, str)
                )
            elif isinstance(node, ast.Call):
                yield from (
                    (inner.arg, inner.value) for inner in node.keywords if inner.arg is not None
                )


@pytest.mark.parametrize("place", CALLS)
def test_no_log_message_has_a_traceback_without_the_development_switch(place: str) -> None:
    call = CALLS[place]
    assert isinstance(call.func, ast.Attribute)
    assert call.func.attr != "exception"
    tracebacks = {
        each.arg: each.value for each in call.keywords if each.arg and "_info" in each.arg
    }
    switched = {"exc_info": "exception_to_log(error)"}  # None without the setting `debug`
    assert {name: ast.unparse(value) for name, value in tracebacks.items()} in ({}, switched)
