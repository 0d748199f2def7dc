"""Write the versions of all resolved dependencies to a constraints file.

The file has only names and versions. Therefore it is valid on every machine and package index.

usage: python scripts/pin.py ".[dev,auth]" constraints.txt
"""

import json
import re
import subprocess
import sys
from pathlib import Path

OWN = "trunkline"


def resolve(requirement: str) -> dict[str, str]:
    """Return the versions that pip would install into an empty environment, by normalised name."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--dry-run",
        "--ignore-installed",
        "--report",
        "-",
    ]
    done = subprocess.run(  # noqa: S603 - a fixed command
        [*command, requirement], check=True, stdout=subprocess.PIPE, text=True
    )
    found = (entry["metadata"] for entry in json.loads(done.stdout)["install"])
    return {re.sub(r"[-_.]+", "-", each["name"]).lower(): each["version"] for each in found}


def main(requirement: str, target: str) -> None:
    """Write the pins of `requirement` to `target`."""
    pins = {name: version for name, version in resolve(requirement).items() if name != OWN}
    lines = [
        "# Made by `make constraints`; do not edit.",
        *(f"{name}=={pins[name]}" for name in sorted(pins)),
    ]
    Path(target).write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"constraints: {len(pins)} versions in {target}")


if __name__ == "__main__":
    main(*sys.argv[1:])
