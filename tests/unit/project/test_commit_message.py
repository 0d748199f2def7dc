import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

ACCEPTED = {
    "a subject": "retry: Limit the delay to one hour",
    "a reason": "retry: Limit the delay\n\nA policy with 20 attempts waited for days.\n",
    "two areas": "security, operations: Cut five imports",
    "an area with a path": "docs/adr: Add a record of the decision",
    "72 characters": f"docs: Add {'a' * 62}",
    "a verb with an s": "cli: Process each line, and pass its number on",
    "a verb that ends in ed": "docs: Embed the diagram",
    "comments of git": "# Please enter\nretry: Limit the delay\n# On branch main\n",
    "a verbose commit": "retry: Limit it\n# ------ >8 ------\ndiff --git a/b b/b\n+no blank line",
    "an autosquash": "fixup! retry: Limit the delay",
}
REFUSED = {
    "73 characters": (f"docs: Add {'a' * 63}", "73 characters"),
    "no area": ("Limit the delay", "begin with an area"),
    "an area with a capital": ("Retry: Limit the delay", "begin with an area"),
    "no space": ("retry:Limit the delay", "begin with an area"),
    "two spaces": ("retry:  Limit the delay", "begin with an area"),
    "no capital": ("retry: limit the delay", "capital letter"),
    "the past": ("retry: Limited the delay", "imperative"),
    "the present": ("retry: Limits the delay", "imperative"),
    "a participle": ("retry: Limiting the delay", "imperative"),
    "a verb alone": ("retry: Limit", "name what"),
    "a full stop": ("retry: Limit the delay.", "full stop"),
    "no blank line": ("retry: Limit the delay\nIt was too long.", "second line"),
    "nothing": ("# a comment\n", "begin with an area"),
}


def check(message: str, folder: Path) -> tuple[int, str]:
    """Return the exit code of the hook and its output."""
    file = folder / "COMMIT_EDITMSG"
    file.write_text(message, encoding="utf-8")
    command = [ROOT / "scripts/hooks/commit-msg", file]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", ACCEPTED)
def test_the_hook_accepts(name: str, tmp_path: Path) -> None:
    assert check(ACCEPTED[name], tmp_path) == (0, "")


@pytest.mark.parametrize("name", REFUSED)
def test_the_hook_refuses(name: str, tmp_path: Path) -> None:
    message, problem = REFUSED[name]
    code, output = check(message, tmp_path)
    assert code == 1
    assert problem in output
