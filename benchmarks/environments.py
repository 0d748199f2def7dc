"""Environments of peers that are not installed beside the bus.

Each has a virtual environment, and the C program is compiled; both are in a cache that git ignores.
"""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Absent", "compiled", "installed"]

CACHE = Path(__file__).parent / ".cache"
INSTALL = 300
"""Seconds that the installation of one peer may take."""


@dataclass(frozen=True)
class Absent(Exception):
    """The absence of a peer on this machine, with the reason; it becomes a note in the report."""

    why: str


def cache() -> Path:
    """Return the directory of the cache, which git ignores."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n", encoding="ascii")
    return CACHE


def installed(name: str, requirements: tuple[str, ...]) -> str:
    """Return the Python of an environment with these requirements; create it on first use.

    Raise `Absent` if the installation fails.
    """
    home = cache() / name
    python, stamp, wanted = home / "bin" / "python", home / ".installed", "\n".join(requirements)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return str(python)
    print(f"bench: installing {name} (once)", flush=True)
    try:
        subprocess.run(
            [sys.executable, "-m", "venv", str(home)],
            check=True,
            capture_output=True,
            timeout=INSTALL,
        )
        command = [
            str(python),
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            *requirements,
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or b""
        last = said.decode(errors="replace").strip().splitlines()[-1:] or [type(error).__name__]
        python_version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise Absent(
            f"could not be installed on Python {python_version}: {last[0][:120]}"
        ) from error
    stamp.write_text(wanted, encoding="utf-8")
    return str(python)


def compiled(source: Path) -> str:
    """Return the C program, compiled if its source is newer.

    Raise `Absent` if the compiler or librabbitmq is missing.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Absent("no C compiler (Debian, Ubuntu: apt-get install gcc librabbitmq-dev)")
    program = cache() / source.stem
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return str(program)
    done = subprocess.run(
        [compiler, "-O2", "-o", str(program), str(source), "-lrabbitmq"],
        capture_output=True,
        check=False,
        timeout=60,
    )
    if done.returncode:
        raise Absent("no headers of librabbitmq (Debian, Ubuntu: apt-get install librabbitmq-dev)")
    return str(program)
