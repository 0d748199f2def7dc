"""Where peers run that are not installed beside the bus: a virtual environment each, and a C program, in a cache that git ignores."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Absent", "compiled", "installed"]

CACHE = Path(__file__).parent / ".cache"
INSTALL = 300
"""Seconds for the installation of one peer."""


@dataclass(frozen=True)
class Absent(Exception):
    """A peer cannot be had here, and why; a note in the report."""

    why: str


def cache() -> Path:
    """The directory, which tells git to ignore it."""
    CACHE.mkdir(exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n", encoding="ascii")
    return CACHE


def installed(name: str, requirements: tuple[str, ...]) -> str:
    """The Python of an environment with these; made the first time. `Absent` where that fails."""
    home = cache() / name
    python, stamp, wanted = home / "bin" / "python", home / ".installed", "\n".join(requirements)
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return str(python)
    print(f"bench: installing {name} (once)", flush=True)
    try:
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, capture_output=True, timeout=INSTALL)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or b""
        last = said.decode(errors="replace").strip().splitlines()[-1:] or [type(error).__name__]
        raise Absent(f"could not be installed on Python {sys.version_info.major}.{sys.version_info.minor}: {last[0][:120]}") from error
    stamp.write_text(wanted, encoding="utf-8")
    return str(python)


def compiled(source: Path) -> str:
    """The C program, compiled when its source is newer; `Absent` where there is no compiler or no librabbitmq."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise Absent("no C compiler is here (Debian, Ubuntu: apt-get install gcc librabbitmq-dev)")
    program = cache() / source.stem
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return str(program)
    done = subprocess.run([compiler, "-O2", "-o", str(program), str(source), "-lrabbitmq"], capture_output=True, check=False, timeout=60)
    if done.returncode:
        raise Absent("librabbitmq's headers are not here (Debian, Ubuntu: apt-get install librabbitmq-dev)")
    return str(program)
