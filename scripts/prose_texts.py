"""Extraction of the human-readable texts of a file, as paragraphs, for check_prose.py.

In a Python file, these texts are docstrings, comments, error messages and log messages. In a
Markdown file, they are all lines outside fenced blocks.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["CODE", "Kind", "Paragraph", "Text", "paragraphs", "python_texts", "without_markup"]

Kind = Literal["docstring", "comment", "error", "log", "page"]
Form = Literal["prose", "item", "row", "heading", "nothing"]


@dataclass(frozen=True, kw_only=True)
class Text:
    """Text of one kind; `line` is the number of its first line in the file."""

    kind: Kind
    line: int
    value: str


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """Paragraph of a text, with its markup; `line` is the number of its first line in the file."""

    kind: Kind
    form: Form
    line: int
    value: str


# --- Texts in Python ---

LOGGERS = {"log", "logger"}
LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
COMMENT_MARK = re.compile(
    r"#+(?:!.*| -{2,}.*| (?:noqa|type|fmt|mypy|ruff|pragma)\b(?:: ?\S+(?:, \w+)*)?)?"
)
"""Part of a comment that is not prose.

This is the comment sign. In a comment for a program or a comment that divides the file, it is the
whole comment.
"""


def python_texts(source: str) -> Iterator[Text]:
    """Yield the docstrings, error messages, log messages and comments of a module."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _docstrings(node.body)
            case ast.Raise(exc=ast.Call(args=arguments)):
                yield from _messages("error", arguments)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)):
                if name in LOGGERS and method in LOG_METHODS:
                    yield from _messages("log", node.args[:1])
    yield from _comments(source)


def _docstrings(body: Sequence[ast.stmt]) -> Iterator[Text]:
    """Yield the string statements of a body: its own docstring and the docstrings of attributes."""
    for node in body:
        match node:
            case ast.Expr(value=ast.Constant(value=str(value))):
                yield Text(kind="docstring", line=node.lineno, value=_without_margin(value))


def _without_margin(docstring: str) -> str:
    """Return a docstring without the indentation of the code. The number of lines is the same."""
    first, *rest = docstring.split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
    return "\n".join([first, *(line[margin:] for line in rest)])


def _messages(kind: Kind, arguments: Iterable[ast.expr]) -> Iterator[Text]:
    """Yield the arguments that are texts. A single word is ignored: it is a code or a name."""
    for node in arguments:
        value = _literal(node)
        if " " in value.strip():
            yield Text(kind=kind, line=node.lineno, value=value)


def _literal(node: ast.expr) -> str:
    """Return the text of a string expression. Each computed part is replaced by `value`."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=parts):
            return "".join(_literal(part) for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _literal(left) + _literal(right)
    return "`value`"


def _comments(source: str) -> Iterator[Text]:
    """Yield the comments of a module. A comment of several lines is one text."""
    group: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if group and not _continues(group[-1], token):
                yield _comment(group)
                group = []
            group.append(token)
    if group:
        yield _comment(group)


def _continues(before: tokenize.TokenInfo, token: tokenize.TokenInfo) -> bool:
    """Return True if `token` continues the comment `before`.

    It does so if it is alone on the next line, and begins in the same column.
    """
    (row, column), alone = token.start, token.line.lstrip().startswith("#")
    return alone and before.start == (row - 1, column)


def _comment(group: Sequence[tokenize.TokenInfo]) -> Text:
    lines = [COMMENT_MARK.sub("", token.string, count=1).strip(" -") for token in group]
    return Text(kind="comment", line=group[0].start[0], value="\n".join(lines))


# --- Paragraphs of a text ---

FENCE = re.compile(r"\s*(`{3,}|~{3,})")
PAGE_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
ITEM = re.compile(r"\s*(?:[-*+]|\d+\.) +")
HEADING = re.compile(r"#+ |\s*!!! ")
ENTRY = re.compile(r"\s+(?:\*{0,2}\w[\w.]*(?: \([^)]*\))?|`[^`]+`): ")
"""Beginning of an entry in the section `Args:` or `Raises:` of a docstring."""
SECTION = re.compile(r"(?:Args|Returns|Raises|Yields|Attributes|Examples?):$")
DRAWING = re.compile(r"\s.*\S {2,}\S|.*[─│├└┌┐]")
"""Line of a table or a diagram in a docstring or a comment, which is laid out with spaces."""


def paragraphs(text: Text) -> Iterator[Paragraph]:
    """Yield the paragraphs of a text. Fenced blocks and drawings are left out."""
    group: list[str] = []
    begin, form = text.line, _form("", text.kind)
    for number, line in enumerate([*_outside_fences(text.value), ""], text.line):
        opened = _form(line, text.kind)
        if group and (opened != "prose" or form in ("row", "heading")):
            yield Paragraph(kind=text.kind, form=form, line=begin, value="\n".join(group))
            group = []
        if opened != "nothing":
            begin, form = (begin, form) if group else (number, opened)
            group.append(_without_mark(line) if opened == "item" else line)


def _without_mark(line: str) -> str:
    """Remove the mark of a list item, or the name of an entry in a docstring's section."""
    return ENTRY.sub("", line, count=1) if ENTRY.match(line) else ITEM.sub("", line, count=1)


def _outside_fences(value: str) -> Iterator[str]:
    """Yield the lines of a text. Lines in fenced blocks and HTML comments become empty lines."""
    fence = ""
    for line in PAGE_COMMENT.sub(lambda match: "\n" * match[0].count("\n"), value).split("\n"):
        mark = FENCE.match(line)
        yield "" if fence or mark else line
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence):
            fence = ""


def _form(line: str, kind: Kind) -> Form:
    """Return the form of a line. A line of the form `prose` can continue the paragraph above it."""
    if not line.strip() or (kind != "page" and (DRAWING.match(line) or SECTION.match(line))):
        return "nothing"
    if ITEM.match(line) or (kind == "docstring" and ENTRY.match(line)):
        return "item"
    if line.lstrip().startswith("|"):
        return "row"
    return "heading" if kind == "page" and HEADING.match(line) else "prose"


# --- Words of a paragraph ---

CODE = re.compile(r"(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
ADDRESS = re.compile(r"<?https?://[^\s>)]+>?")


def without_markup(value: str) -> str:
    """Return Markdown without its markup, with the same lines.

    A code span or an address becomes one word. A link becomes its text.
    """
    text = CODE.sub(lambda match: "`x`" + "\n" * match[0].count("\n"), value)
    return ADDRESS.sub("`x`", LINK.sub(r"\1", text)).replace("**", "")
