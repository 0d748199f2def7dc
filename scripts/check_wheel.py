"""Build the wheel, install it alone into a new environment, and check its content and import times.

usage: python scripts/check_wheel.py

The wheel must have only `bus` at the top level, and the migrations of the store. `import bus` may
take at most 0.4 s, and `from bus import Event` at most 0.15 s. Each statement is timed in several
new interpreters, in turn with the other statements, and the median counts. The exit code is 1 if a
check fails.
"""

import statistics
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
RUNS = 15
LIMITS = {"import bus": 0.4, "from bus import Event": 0.15}
"""Maximum seconds that each statement may take."""
SHOWN = ("from pydantic import BaseModel; type('M', (BaseModel,), {})", "from bus import Bus")
"""Statements that are timed without a limit, for comparison.

The first shows the time that pydantic needs. The second also imports a transport.
"""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Return the output of a command, or print its standard error and exit if it fails."""
    done = subprocess.run(  # noqa: S603 - commands of this file
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise SystemExit(f"check-wheel: {' '.join(map(str, command))}: exit code {done.returncode}")
    return done.stdout


def build(folder: Path) -> Path:
    """Build the wheel of this checkout and return its path."""
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--wheel-dir",
        folder,
        ROOT,
    )
    return next(folder.glob("*.whl"))


def top_level(wheel: Path) -> set[str]:
    """Return the top-level names that the wheel installs into site-packages."""
    names = {name.partition("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    return {name for name in names if not name.endswith(".dist-info")}


def missing_migrations(wheel: Path) -> set[str]:
    """Return the files of the store's migrations that the checkout has and the wheel has not."""
    folder = ROOT / "bus/storage/sqlalchemy/migrations"
    needed = {str(path.relative_to(ROOT)) for path in folder.rglob("*.py")}
    return needed - {*zipfile.ZipFile(wheel).namelist()}


def installed(wheel: Path, folder: Path) -> Path:
    """Install the wheel and its dependencies into a new environment, and return its Python."""
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    constraints = ROOT / "constraints.txt"
    run(
        python,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--constraint",
        constraints,
        wheel,
    )
    return python


def seconds(python: Path, statements: tuple[str, ...], cwd: Path) -> dict[str, float]:
    """Return the median time of each statement. Each run is in a new interpreter."""
    times: dict[str, list[float]] = {statement: [] for statement in statements}
    for _ in range(RUNS + 1):
        for statement, taken in times.items():
            timed = (
                f"import time; began = time.perf_counter(); {statement}; "
                "print(time.perf_counter() - began)"
            )
            taken.append(float(run(python, "-c", timed, cwd=cwd)))
    # Ignore the first run, because Python may compile modules to bytecode in it.
    return {statement: statistics.median(taken[1:]) for statement, taken in times.items()}


def main() -> int:
    """Print a line for each check, and return 1 if one failed."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheel = build(folder)
        brought = top_level(wheel)
        failed = brought != {"bus"}
        size, packages = wheel.stat().st_size / 1000, ", ".join(sorted(brought))
        print(f"{wheel.name}: {size:.0f} kB, top level: {packages}")
        if missing := missing_migrations(wheel):
            failed = True
            print(f"migrations: MISSING {', '.join(sorted(missing))}")
        python = installed(wheel, folder / "venv")
        # Run in an empty folder. In the checkout, Python would import the checkout's `bus`.
        empty = folder / "empty"
        empty.mkdir()
        place = run(python, "-c", "import bus; print(bus.__file__)", cwd=empty).strip()
        failed |= "site-packages" not in place
        usage = run(folder / "venv" / "bin" / "bus", "--help", cwd=empty).split("Usage:")[-1]
        print(f"bus --help: {usage.split('[')[0].strip()} answers")
        for statement, taken in seconds(python, (*LIMITS, *SHOWN), empty).items():
            limit = LIMITS.get(statement)
            slow = limit is not None and taken > limit
            failed |= slow
            print(
                f"{statement}: {taken:.3f} s"
                + (f", at most {limit} s{': TOO SLOW' if slow else ''}" if limit else "")
            )
    print("check-wheel: failed" if failed else "check-wheel: passed")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
