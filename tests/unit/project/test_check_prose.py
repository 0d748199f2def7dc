import importlib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]
AVOID = {"anew": "again", r"under\s+way": "in flight"}
LONG = "A " + "long " * 23 + "sentence"
"""25 words."""

with pytest.MonkeyPatch.context() as patch:
    patch.syspath_prepend(str(ROOT / "scripts"))
    prose: Any = importlib.import_module("check_prose")


def rules(path: str, source: str) -> list[tuple[int, int]]:
    """Return the line and the rule of each breach."""
    return [(breach.line, breach.rule) for breach in prose.breaches(path, source, AVOID)]


BREACHES = {
    "a docstring that begins with a clause": (1, '"""Whether a queue is empty."""'),
    "a docstring of an attribute": (1, 'LIMIT = 3; """How many."""'),
    "where for if": (2, '"""Return the key, or None where it is missing."""'),
    "where for if after an error": (2, '"""Raise `NotServed` where no queue takes it."""'),
    "is no": (3, '"""Return a value that is no contract."""'),
    "are none": (3, "# The others are none of these."),
    "a clause as subject": (4, "# What was sent is confirmed."),
    "a clause after a semicolon": (4, "# The channel closes; whoever waits gets an error."),
    "he": (4, "# The caller gets his reply."),
    "a word to avoid": (5, "# Send it anew."),
    "a phrase to avoid over two lines": (5, "# A message that is under\n# way stays."),
    "a long sentence": (6, f"# {LONG} too."),
    "an error that begins with a pronoun": (7, 'raise InvalidKey("it must have 32 bytes")'),
    "an error with is no": (7, 'raise InvalidKey(f"{path} is no file")'),
    "an error that begins with this": (7, 'raise InvalidKey("this is 31 bytes long")'),
    "an error in parts": (7, 'raise InvalidKey("its" + f" key {path} is invalid")'),
    "a log message": (5, 'log.warning("sending it anew to %s", queue)'),
    "the domain of the example": (11, "# A patient waits for the reply."),
}
CLEAN = {
    "a verb": '"""Return True if the queue is empty."""',
    "a clause later": '"""Return the key if it is set.\n\nUsers see what they send.\n"""',
    "where for a location": '"""Return the folder where the keys are."""',
    "there is no": "# If there is no reply, the call ends.",
    "is no longer": "# The key is no longer valid, and no older than a minute.",
    "a question": "# What happens if the broker stops?",
    "a word in code": "# Call `anew` of `under way`.",
    "a word inside another": "# A canew is a boat.",
    "a sentence of 25 words": f"# {LONG}.",
    "a code span is one word": f"# {LONG[:-9]} `a span of many words`.",
    "two sentences in one line of a comment": f"# {LONG}. {LONG}.",
    "an abbreviation": "# Use a name, e.g. Emma. Names are short.",
    "an error that begins with a value": 'raise InvalidKey(f"{path} must have mode 600")',
    "an error that begins with a name": 'raise InvalidKey("BUS_KEY is not set. Create a key.")',
    "an error about this machine": 'raise NoPort("this machine has 3 free ports")',
    "a code of an error": 'raise Failed("it")',
    "a string that is not a message": 'TEXT = "it is no message under way"',
    "a directive": "import os  # noqa: F401",
    "a table in a docstring": f'"""Return a table.\n\n    name    {LONG} and more\n\nThe end.\n"""',
}


@pytest.mark.parametrize("name", BREACHES)
def test_the_check_finds(name: str) -> None:
    rule, source = BREACHES[name]
    assert rule in [found for _, found in rules("bus/module.py", source)]


@pytest.mark.parametrize("name", CLEAN)
def test_the_check_leaves_alone(name: str) -> None:
    assert rules("bus/module.py", CLEAN[name]) == []


@pytest.mark.parametrize(("rule", "source"), BREACHES.values(), ids=list(BREACHES))
def test_a_breach_is_reported_at_its_line(rule: int, source: str) -> None:
    assert (4, rule) in rules("bus/module.py", f"import os\n\n\n{source}")


def test_each_paragraph_of_a_docstring_is_read_by_itself() -> None:
    source = f'''
def send():
    """Send a message.

    {LONG}

    - {LONG}
    - {LONG}

    Args:
        first: {LONG}
        second: {LONG} with more.
    """
'''
    assert rules("bus/module.py", source) == [(12, 6)]


@pytest.mark.parametrize("name", ["contracts/a.py", "workers/a.py", "examples/a.py"])
def test_the_reference_application_names_its_domain(name: str) -> None:
    assert rules(name, "# A patient waits for the reply.") == []


def test_a_page_has_one_sentence_in_a_line() -> None:
    page = "# A title. It is long\n\nOne sentence. Another.\nA third\nsentence.\n\n- One. Two.\n"
    assert rules("docs/page.md", page) == [(3, 6)]
    assert rules("docs/reference/api.md", page) == []


def test_the_sentence_of_a_page_may_end_in_the_next_line_and_begin_in_lower_case() -> None:
    assert rules("docs/page.md", f"{LONG}.\npytest is a tool, and\n`bus` is another.\n") == []
    assert rules("docs/page.md", f"A word.\n{LONG}\nof three lines.\n") == [(2, 6)]


def test_code_headings_and_tables_of_a_page_have_no_limit() -> None:
    page = (
        f"## {LONG} heading\n\n| a | {LONG} cell |\n|---|---|\n\n"
        f"```text\nanew {LONG} line\n```\n\n<!-- anew -->\n"
    )
    assert rules("docs/page.md", page) == []


def test_words_are_found_in_headings_and_tables_of_a_page() -> None:
    assert rules("docs/page.md", "## Sent anew\n\n| a | sent anew |\n") == [(1, 5), (3, 5)]


def test_the_words_to_avoid_are_those_of_the_glossary_without_a_note() -> None:
    words = prose.words_to_avoid((ROOT / prose.GLOSSARY).read_text(encoding="utf-8"))
    assert words["anew"] == "again"
    assert words[r"hears\s+of"] == "is notified, receives an error"
    assert not {"place", "word", "letter"} & words.keys()
    assert "envelope" not in words


GLOSSARY = """# Glossary

## Do not use

| do not use | use instead |
|---|---|
| anew | again |
"""
PROJECT = """
[[tool.trunkline.prose.allow]]
path = "docs/page.md"
rule = 5
text = "quotes anew"
reason = "it is about the word"
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a page that may break rule 5 once."""
    files = {
        "pyproject.toml": PROJECT,
        "docs/glossary.md": GLOSSARY,
        "docs/page.md": "This line quotes anew.\n",
        "bus/old/module.py": "# Sent again.\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.setattr(prose, "ROOT", tmp_path)
    return tmp_path


def test_the_exceptions_of_the_project_hold(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prose.main([]) == 0
    assert capsys.readouterr().out == ""
    (repository / "bus/new.py").write_text("# Sent anew.\n", encoding="utf-8")
    assert prose.main([]) == 1
    assert capsys.readouterr().out == 'bus/new.py:1: rule 5: "anew"; write: again\n'


def test_an_entry_of_the_allow_list_that_is_not_needed_is_an_error(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "docs/page.md").write_text("This line is clean.\n", encoding="utf-8")
    assert prose.main([]) == 1
    assert "docs/page.md has no breach of rule 5 with 'quotes anew'" in capsys.readouterr().out


def test_an_entry_of_the_allow_list_needs_a_reason(repository: Path) -> None:
    project = PROJECT.replace('reason = "it is about the word"', "")
    (repository / "pyproject.toml").write_text(project, encoding="utf-8")
    with pytest.raises(TypeError, match="reason"):
        prose.main([])


def test_the_count_lists_the_breaches_by_folder_and_rule(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "bus/old/module.py").write_text("# Sent anew.\n", encoding="utf-8")
    assert prose.main(["--count"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["rule", "5"], ["bus/old", "1"], ["all", "1"]]
