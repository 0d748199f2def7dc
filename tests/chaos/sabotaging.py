"""Check that the tests notice each broken variant: `python -m tests.chaos.sabotaging [NAME…]`.

The results go to `docs/reliability.json`, and `docs/reliability.md` shows them.
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
"""Seed with faults that affect the broken variants; the tests themselves accept any seed."""
FAILED = 1
"""Exit code of pytest if tests ran and some failed."""


def main(names: list[str]) -> int:
    """Return 0 if the tests noticed each variant."""
    if unknown := [name for name in names if name not in SABOTAGES]:
        print(
            f"sabotage: unknown variants: {', '.join(unknown)}. "
            f"Choose from {', '.join(SABOTAGES)}.",
            file=sys.stderr,
        )
        return os.EX_USAGE
    chosen = {name: SABOTAGES[name] for name in names or SABOTAGES}
    tests = sorted({each.caught_by for each in chosen.values()})
    print(f"sabotage: {len(tests)} tests without sabotage", flush=True)
    code, output = run(tests)
    if code:
        print(
            f"{output}\nsabotage: the tests fail without sabotage. Fix them first.",
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
    """Save the result, write the page, and return True if the test noticed the variant."""
    figures = load()
    figures["sabotages"][name] = tried
    save(figures)
    page.write(figures)
    return tried["noticed"]


def caught(name: str, sabotage: Sabotage) -> Tried:
    """Run the test of a variant, and return whether it fails with the expected text."""
    began = time.monotonic()
    code, output = run([sabotage.caught_by], **{VARIABLE: name})
    said = re.findall(r"^E +AssertionError: (.*)$", output, re.MULTILINE)
    found = code == FAILED and bool(said) and sabotage.words in said[-1]
    test = sabotage.caught_by.partition("::")[2]
    how = said[-1].partition(", such as")[0][:90] if said else f"pytest ended with {code}"
    print(
        f"  {'caught ' if found else 'ESCAPED'}  {name}: {sabotage.what}\n"
        f"           {test}: {how} ({time.monotonic() - began:.0f} s)",
        flush=True,
    )
    return Tried(noticed=found, said=how, date=today())


def run(tests: list[str], **environment: str) -> tuple[int, str]:
    """Return the exit code and the output of pytest."""
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
