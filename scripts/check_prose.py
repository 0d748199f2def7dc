"""Check the text of this repository against the rules in docs/contributing/style.md.

usage: python scripts/check_prose.py [--count] [FILE ...]

The script finds those breaches of the rules 1 to 7 and 11 that a program can find. It reads the
files of the command line, or `SOURCES` if no file is given. It prints `path:line: rule N: message`
for each breach, and exits with 1 if there is a breach. `--count` prints only the number of breaches
by folder and rule.

The list `[[tool.trunkline.prose.allow]]` in pyproject.toml has the texts that may break a rule, and
the reasons.
"""

import re
import sys
import tomllib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prose_texts import Paragraph, Text, paragraphs, python_texts, without_markup

__all__ = ["Allowed", "Breach", "breaches", "main", "words_to_avoid"]

ROOT = Path(__file__).parents[1]
SOURCES = (
    *("bus/**/*.py", "contracts/**/*.py", "workers/**/*.py", "examples/**/*.py"),
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs/**/*.md"),
)
GLOSSARY = "docs/glossary.md"
AVOIDED = "\n## Do not use\n"
"""Heading above the glossary's table of words to avoid. Rule 5 forbids these words."""
GENERATED = ("docs/reference/api.md", "docs/reference/command-line.md")
"""Pages that scripts generate. They may have several sentences on a line."""
REFERENCE_APPLICATION = ("workers/", "contracts/", "examples/")
"""Folders with the reference application. Only they may use words of its medical domain."""
MAX_WORDS = 25

Found = tuple[int, int, str]
"""Breach in a text: its line (the first line is 0), its rule and a message."""


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position)


# --- Rules 1 and 7: the beginning of a docstring or an error ---

DOCSTRING_START = re.compile(
    r"(?:What|Who|Whether|Where|It|Its|Of|Why|How|By|No|Nothing|Nobody|That|Those|Each)\b"
)
PRONOUN = re.compile(
    r"(?:he|his|i|it|its|nobody|none|nothing|one|our|she|their|there|they|we|what|whatever|where"
    r"|which|who|whoever|you|your"
    r"|(?:that|these|this|those)(?=\s+(?:is|are|was|has|have|cannot|may|must)\b))\b",
    re.IGNORECASE,
)


def in_start(text: Text) -> Iterator[Found]:
    """Yield a breach at the start of a text: of rule 1 in a docstring, of rule 7 in an error."""
    if text.kind == "docstring" and (match := DOCSTRING_START.match(text.value)):
        yield 0, 1, f'begins with "{match[0]}"; begin with a verb, a noun or "True if"'
    if text.kind == "error" and (match := PRONOUN.match(text.value)):
        yield 0, 7, f'begins with "{match[0]}"; name the setting, queue or type first'


# --- Rules 2 to 5, 7 and 11: words ---

WHERE_FOR_IF = re.compile(
    r"(?:\b(?:None|False|True|[Ee]mpty|[Nn]othing|refused)`?|`[A-Z][a-z]\w*`|Error)\s+where\b"
)
IS_NO = re.compile(
    r"(?<!\b[Tt]here )\b(?:is|are|was|were)\s+"
    r"(?:no\s+(?!longer\b|more\b|less\b|\w+er\s+than\b)\w+|none\b)"
)
HE = re.compile(r"\b(?:[Hh]e|[Hh]is|[Hh]im|[Hh]imself)\b")
PATIENT = re.compile(r"\bpatients?\b", re.IGNORECASE)


def in_words(paragraph: Paragraph, avoid: Mapping[str, str]) -> Iterator[Found]:
    """Yield the breaches of the rules 2 to 5 and 7 in single words and phrases."""
    text, rule = without_markup(paragraph.value), 7 if paragraph.kind == "error" else 3
    for match in WHERE_FOR_IF.finditer(paragraph.value):
        line = _line(paragraph.value, match.start())
        yield line, 2, f'"{match[0]}"; write "if" or "when" for a condition'
    for match in IS_NO.finditer(text):
        message = f'"{match[0]}"; write "is not a", "has no" or "is invalid"'
        yield _line(text, match.start()), rule, message
    for match in HE.finditer(text):
        yield _line(text, match.start()), 4, f'"{match[0]}"; name the actor'
    for word, better in avoid.items():
        for match in re.finditer(rf"\b{word}\b", text, re.IGNORECASE):
            yield _line(text, match.start()), 5, f'"{match[0]}"; write: {better}'


def in_domain(text: str) -> Iterator[Found]:
    """Yield the breaches of rule 11: words of the medical domain in the library."""
    for match in PATIENT.finditer(text):
        yield _line(text, match.start()), 11, f'"{match[0]}"; write about orders, books or loans'


def words_to_avoid(glossary: str) -> dict[str, str]:
    """Return the words that rule 5 forbids, as regular expressions, with their replacements.

    A row of the glossary with a note in parentheses is ignored. Its words are correct in another
    meaning, so only reviewers can check them.
    """
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", glossary.partition(AVOIDED)[2], re.MULTILINE)
    return {
        re.escape(word).replace(r"\ ", r"\s+"): better
        for words, better in rows[1:]
        if "(" not in words
        for word in words.split(", ")
    }


# --- Rules 4 and 6: sentences ---

SENTENCE = re.compile(r"\S.*?(?:[.!?][)\"*]*(?=\s)|\Z)", re.DOTALL)
ABBREVIATION = re.compile(r"\b(?:e\.g|i\.e|etc|cf|vs|No)\.$")
CLAUSE = re.compile(r"(?:^|(?<=; ))(?:[Ww]ho|[Ww]hat)(?:ever)?\b")


def in_sentences(paragraph: Paragraph, *, is_page: bool) -> Iterator[Found]:
    """Yield the breaches of the rules 4 and 6, which concern a sentence: subject, length, line."""
    text = without_markup(paragraph.value)
    last = -1
    for position, sentence in sentences(text):
        line, words = _line(text, position), sentence.split()
        beginning = " ".join(words[:6])
        if len(words) > MAX_WORDS:
            yield line, 6, f"{len(words)} words, at most {MAX_WORDS}: {beginning} …"
        if (match := CLAUSE.search(sentence)) and not sentence.endswith("?"):
            yield line, 4, f'"{match[0]}" begins a subject; name the actor: {beginning} …'
        if line == last and is_page and paragraph.form == "prose":
            yield line, 6, f"second sentence on one line: {beginning} …"
        last = _line(text, position + len(sentence))


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Yield the position and the text of each sentence; `text` has no markup."""
    begin = None
    for match in SENTENCE.finditer(text):
        begin = match.start() if begin is None else begin
        if match.end() == len(text) or not ABBREVIATION.search(match[0]):
            yield begin, text[begin : match.end()]
            begin = None


# --- Files ---


@dataclass(frozen=True, order=True)
class Breach:
    """Breach of a rule in a file."""

    path: str
    line: int
    rule: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: rule {self.rule}: {self.message}"


def breaches(path: str, source: str, avoid: Mapping[str, str]) -> list[Breach]:
    """Return the breaches in a file, sorted by line. `path` is relative to the repository."""
    prose = source.partition(AVOIDED)[0] if path == GLOSSARY else source
    page = Text(kind="page", line=1, value=prose)
    is_page = path.endswith(".md") and path not in GENERATED
    found: set[Breach] = set()
    for text in python_texts(source) if path.endswith(".py") else [page]:
        found |= _at(path, text.line, in_start(text))
        for paragraph in paragraphs(text):
            found |= _at(path, paragraph.line, in_words(paragraph, avoid))
            if paragraph.form in ("prose", "item"):
                found |= _at(path, paragraph.line, in_sentences(paragraph, is_page=is_page))
            if not path.startswith(REFERENCE_APPLICATION):
                found |= _at(path, paragraph.line, in_domain(without_markup(paragraph.value)))
    return sorted(found)


def _at(path: str, first: int, found: Iterator[Found]) -> set[Breach]:
    return {Breach(path, first + line, rule, message) for line, rule, message in found}


def sources(names: Sequence[str]) -> Iterator[Path]:
    """Yield the files of the command line, or all files of `SOURCES` if no file is given."""
    if names:
        yield from (Path(name).resolve() for name in names)
    else:
        yield from (path for pattern in SOURCES for path in sorted(ROOT.glob(pattern)))


# --- Exceptions ---


@dataclass(frozen=True)
class Allowed:
    """Entry of the allow list. It allows breaches of `rule` in lines that contain `text`."""

    path: str
    rule: int
    text: str
    reason: str

    def covers(self, breach: Breach, line: str) -> bool:
        """Return True if this entry allows a breach."""
        return (self.path, self.rule) == (breach.path, breach.rule) and self.text in line


def read_allow_list(project: str) -> list[Allowed]:
    """Return the allow list of a pyproject.toml."""
    table = tomllib.loads(project)["tool"]["trunkline"]["prose"]
    return [Allowed(**entry) for entry in table.get("allow", ())]


def check(files: Iterable[Path], allow: Sequence[Allowed]) -> tuple[list[Breach], set[Allowed]]:
    """Return the breaches that no entry allows, and the entries that allow at least one breach."""
    avoid = words_to_avoid((ROOT / GLOSSARY).read_text(encoding="utf-8"))
    remaining: list[Breach] = []
    used: set[Allowed] = set()
    for file in files:
        source = file.read_text(encoding="utf-8")
        lines = source.split("\n")
        for breach in breaches(file.relative_to(ROOT).as_posix(), source, avoid):
            covering = {entry for entry in allow if entry.covers(breach, lines[breach.line - 1])}
            remaining += [] if covering else [breach]
            used |= covering
    return remaining, used


# --- The command ---


def main(arguments: Sequence[str]) -> int:
    """Print the breaches, or with `--count` the number of breaches. Return the exit code."""
    allow = read_allow_list((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    names = [argument for argument in arguments if argument != "--count"]
    found, used = check(sources(names), allow)
    if "--count" in arguments:
        print(table_of(found))
        return 0
    lines = [str(breach) for breach in found]
    if not names:
        lines += [
            f"pyproject.toml: {entry.path} has no breach of rule {entry.rule} with"
            f" {entry.text!r}. Remove the entry from the allow list."
            for entry in allow
            if entry not in used
        ]
    print("\n".join(lines), end="\n" if lines else "")
    return 1 if lines else 0


def table_of(found: Sequence[Breach]) -> str:
    """Return a table with the number of breaches by folder and rule."""
    counts = Counter((_folder(breach.path), breach.rule) for breach in found)
    counts.update(("all", breach.rule) for breach in found)
    rules = sorted({rule for _, rule in counts})
    rows = [f"{'':24}" + "".join(f"{f'rule {rule}':>8}" for rule in rules)]
    rows += [
        f"{folder:24}" + "".join(f"{counts[folder, rule]:8}" for rule in rules)
        for folder in dict.fromkeys(folder for folder, _ in counts)
    ]
    return "\n".join(rows)


def _folder(path: str) -> str:
    """Return the first two folders of a path, or the file name if the file is not in a folder."""
    return "/".join(path.split("/")[:-1][:2]) or path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
