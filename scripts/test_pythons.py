"""Run `make test` on each available Python, and print the results.

usage: python scripts/test_pythons.py [PYTHON | ROOT ...]

PYTHON is an interpreter's path. ROOT is the root directory of another Debian, made with
debootstrap: its Python and its RabbitMQ are used. Without an argument the tests run on each
supported version that is on the PATH or among pyenv's versions. If a version is not found, the
script prints this, and it is not a failure. Each run has a clone of the last commit, with an
environment of its own. The exit code is 1 if a run failed, and 69 if no Python was found.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
"""The versions of Python that the tests support."""
COUNTS = re.compile(
    r"^(?:=+ )?((?:\d+ (?:failed|passed|skipped|errors?)(?:, )?)+) in ", re.MULTILINE
)
ASK_VERSION = "import platform; print(platform.python_version())"
ASK_BROKER = "dpkg-query --show --showformat='${Version}' rabbitmq-server 2>/dev/null || true"
MOUNTS = (
    'mountpoint -q "$0/proc" || mount -t proc proc "$0/proc"; '
    'mountpoint -q "$0/dev" || mount --rbind /dev "$0/dev"; '
    'exec chroot "$0" sh -c "$1"'
)
"""Commands that mount what the tests need below a root directory, and run a command there.

They run in a mount namespace of their own, so that the mounts end with them.
"""


@dataclass(frozen=True, kw_only=True)
class Target:
    """An interpreter, and the root directory in which it runs."""

    python: str
    root: Path | None = None

    def command(self, script: str) -> list[str]:
        """Return the command that runs a shell script beside this interpreter."""
        if self.root is None:
            return ["sh", "-c", script]
        return ["unshare", "--mount", "sh", "-c", MOUNTS, str(self.root), script]

    def read(self, script: str) -> str:
        """Return the output of a shell script, or an empty text if it failed."""
        ended = subprocess.run(  # noqa: S603 - fixed scripts
            self.command(script), capture_output=True, text=True, check=False, cwd=PROJECT
        )
        return ended.stdout.strip() if ended.returncode == 0 else ""

    def version(self) -> str:
        """Return the version of Python, or an empty text if the interpreter does not run."""
        return self.read(f"'{self.python}' -c '{ASK_VERSION}'")


@dataclass(frozen=True, kw_only=True)
class Result:
    """Result of the tests on one Python."""

    version: str
    broker: str
    passed: bool
    counts: str
    seconds: float


def target_named(name: str) -> Target:
    """Return the target of an argument: an interpreter, or a root directory."""
    if Path(name).is_dir():
        return Target(python="/usr/bin/python3", root=Path(name).resolve())
    return Target(python=shutil.which(name) or name)


def found_targets() -> Iterator[Target]:
    """Yield an interpreter for each version, from the PATH or from pyenv."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in VERSIONS:
        candidates = [f"python{version}", *sorted(map(str, pyenv.glob(f"{version}.*/bin/python")))]
        for candidate in candidates:
            target = target_named(candidate)
            if target.version().startswith(f"{version}."):
                yield target
                break
        else:
            print(
                f"test-pythons: Python {version} was not found on the PATH or in pyenv", flush=True
            )


def run_on(target: Target) -> Result:
    """Run the tests in a clone of the last commit, print their output, and return the result."""
    version = target.version()
    print(f"test-pythons: Python {version} ({target.root or target.python})", flush=True)
    temporary = (target.root or Path("/")) / "var/tmp"
    with tempfile.TemporaryDirectory(prefix="trunkline-", dir=temporary) as folder:
        clone = ["git", "clone", "--quiet", "--no-hardlinks", str(PROJECT), f"{folder}/trunkline"]
        subprocess.run(clone, check=True)  # noqa: S603 - a fixed command
        inside = Path("/") / Path(folder).relative_to(target.root or "/")
        began = time.monotonic()
        passed, output = _run(
            target, f"cd '{inside}/trunkline' && make PYTHON='{target.python}' test"
        )
    return Result(
        version=version,
        broker=_broker_version(target),
        passed=passed,
        counts=" + ".join(COUNTS.findall(output)) or "no test ran",
        seconds=time.monotonic() - began,
    )


def _run(target: Target, script: str) -> tuple[bool, str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("BUS_")}
    lines = []
    with subprocess.Popen(  # noqa: S603 - a fixed command
        target.command(script),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    return process.returncode == 0, "".join(lines)


def _broker_version(target: Target) -> str:
    """Return the version of the RabbitMQ package, without the distribution's part."""
    return target.read(ASK_BROKER).partition("-")[0] or "unknown"


def main(names: list[str]) -> int:
    """Run the tests on each Python, print the results, and return the exit code."""
    targets = [target_named(name) for name in names] if names else list(found_targets())
    for target in targets:
        if not target.version():
            print(f"test-pythons: {target.root or target.python} is not a Python", file=sys.stderr)
            return os.EX_USAGE
    results = [run_on(target) for target in targets]
    for each in results:
        word = "passed" if each.passed else "FAILED"
        print(
            f"test-pythons: {word}  Python {each.version}, RabbitMQ {each.broker}: "
            f"{each.counts} in {each.seconds:.0f} s"
        )
    if not results:
        return os.EX_UNAVAILABLE
    return int(not all(each.passed for each in results))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
