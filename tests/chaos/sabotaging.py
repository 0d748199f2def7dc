"""`python -m tests.chaos.sabotaging [NAME…]`: breaks the bus in each way, and sees whether the test that is named for it notices.

What it finds goes to `docs/reliability.json`, and is shown in `docs/reliability.md`.
"""

import os
import re
import subprocess
import sys
import time

from tests.chaos import page
from tests.chaos.report import Tried, load, save, today
from tests.chaos.sabotage import SABOTAGES, VARIABLE, Sabotage
from tests.integration.command import ROOT

SEED = "20"
"""One at which every fault is of a kind that the broken variant minds; the tests themselves take any."""
FAILED = 1
"""pytest's exit code where tests ran, and some failed."""


def main(names: list[str]) -> int:
    """0 where each was caught."""
    if unknown := [name for name in names if name not in SABOTAGES]:
        print(
            f"sabotage: no such variant: {', '.join(unknown)}; there are {', '.join(SABOTAGES)}",
            file=sys.stderr,
        )
        return os.EX_USAGE
    chosen = {name: SABOTAGES[name] for name in names or SABOTAGES}
    tests = sorted({each.caught_by for each in chosen.values()})
    print(f"sabotage: {len(tests)} tests without sabotage", flush=True)
    code, output = run(tests)
    if code:
        print(
            f"{output}\nsabotage: they fail as it is; nothing can be learnt from their failing",
            file=sys.stderr,
        )
        return 1
    escaped = [name for name, each in chosen.items() if not kept(name, caught(name, each))]
    print(
        f"sabotage: {len(chosen) - len(escaped)} of {len(chosen)} caught"
        + (f"; escaped: {', '.join(escaped)}" if escaped else "")
    )
    return 1 if escaped else 0


def kept(name: str, tried: Tried) -> bool:
    """What was found, on the page; and whether the variant was noticed."""
    figures = load()
    figures["sabotages"][name] = tried
    save(figures)
    page.write(figures)
    return tried["noticed"]


def caught(name: str, sabotage: Sabotage) -> Tried:
    """Whether its test fails, and in the words that it should."""
    began = time.monotonic()
    code, output = run([sabotage.caught_by], **{VARIABLE: name})
    said = re.findall(r"^E +AssertionError: (.*)$", output, re.MULTILINE)
    found = code == FAILED and bool(said) and sabotage.words in said[-1]
    test = sabotage.caught_by.partition("::")[2]
    how = said[-1].partition(", such as")[0][:90] if said else f"pytest ended with {code}"
    print(
        f"  {'caught ' if found else 'ESCAPED'}  {name}: {sabotage.what}\n           {test}: {how} ({time.monotonic() - began:.0f} s)",
        flush=True,
    )
    return Tried(noticed=found, said=how, date=today())


def run(tests: list[str], **environment: str) -> tuple[int, str]:
    """pytest's exit code, and what it said."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "CHAOS_SEED": SEED, **environment},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
