"""A search for the RabbitMQ on this machine. The result has the paths of RabbitMQ's programs."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Installation", "find_installation", "versions"]

PACKAGED = Path("/usr/lib/rabbitmq/bin")
"""Directory of RabbitMQ's scripts in Debian's and Red Hat's packages.

The wrappers in /usr/sbin are not used, because these wrappers run the scripts as another user.
"""


@dataclass(frozen=True, kw_only=True)
class Installation:
    """The paths of RabbitMQ's and Erlang's programs."""

    server: Path
    ctl: Path
    epmd: Path
    search_path: str
    """Value of the variable `PATH`. RabbitMQ's scripts search these directories for `erl`."""


def find_installation(
    environment: Mapping[str, str], packaged: Path = PACKAGED
) -> Installation | None:
    """Return the first complete installation, or None if this machine has none.

    The search order is `RABBITMQ_HOME`, the distribution's package, `PATH`.
    """
    search_path = environment.get(
        "PATH", "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
    )
    epmd = find_epmd(search_path)
    scripts = next(runnable(script_directories(environment, search_path, packaged)), None)
    if scripts is None or epmd is None:
        return None
    return Installation(
        server=scripts / "rabbitmq-server",
        ctl=scripts / "rabbitmqctl",
        epmd=epmd,
        search_path=search_path,
    )


def script_directories(
    environment: Mapping[str, str], search_path: str, packaged: Path
) -> Iterator[Path]:
    """Yield the directories to search for the scripts. The preferred directory is first."""
    if home := environment.get("RABBITMQ_HOME"):
        yield Path(home, "sbin")
    yield packaged
    if on_path := shutil.which("rabbitmq-server", path=search_path):
        yield Path(on_path).resolve().parent


def runnable(directories: Iterable[Path]) -> Iterator[Path]:
    """Return the directories that contain `rabbitmq-server` and `rabbitmqctl`."""
    return (
        directory
        for directory in directories
        if (directory / "rabbitmq-server").is_file() and (directory / "rabbitmqctl").is_file()
    )


def find_epmd(search_path: str) -> Path | None:
    """Return the path of Erlang's name server (epmd).

    If `search_path` does not contain epmd, use the epmd in the installation of `erl`.
    """
    if epmd := shutil.which("epmd", path=search_path):
        return Path(epmd)
    erl = shutil.which("erl", path=search_path)
    return next(Path(erl).resolve().parent.parent.glob("erts-*/bin/epmd"), None) if erl else None


def versions(installation: Installation) -> dict[str, str]:
    """Return the versions of `rabbitmq` and `erlang`. If a version is not found, it is `unknown`.

    The function reads the versions from files. It does not run a program.
    """
    plugins = installation.server.resolve().parent.parent / "plugins"
    rabbitmq = next(
        (
            plugin.name.removeprefix("rabbit-").removesuffix(".ez")
            for plugin in plugins.glob("rabbit-*")
        ),
        "unknown",
    )
    return {"rabbitmq": rabbitmq, "erlang": erlang_release(installation.search_path)}


def erlang_release(search_path: str) -> str:
    """Return Erlang's release, such as `25`. The release is the second word in `start_erl.data`."""
    with contextlib.suppress(OSError, IndexError):
        erl = Path(shutil.which("erl", path=search_path) or "").resolve()
        return (
            (erl.parent.parent / "releases" / "start_erl.data")
            .read_text(encoding="utf-8")
            .split()[1]
        )
    return "unknown"
