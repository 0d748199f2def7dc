"""The RabbitMQ that is installed on this machine, and where its programs are."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Installation", "find_installation", "versions"]

PACKAGED = Path(
    "/usr/lib/rabbitmq/bin"
)  # Debian's and Red Hat's; their /usr/sbin holds wrappers that change the user


@dataclass(frozen=True, kw_only=True)
class Installation:
    """Programs of one RabbitMQ and the Erlang that runs it."""

    server: Path
    ctl: Path
    epmd: Path
    search_path: str
    """The PATH on which its scripts find `erl`."""


def find_installation(
    environment: Mapping[str, str], packaged: Path = PACKAGED
) -> Installation | None:
    """What `RABBITMQ_HOME`, the distribution's package or `PATH` name, in this order; None where nothing can be run."""
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
    """Where the scripts may be, best first."""
    if home := environment.get("RABBITMQ_HOME"):
        yield Path(home, "sbin")
    yield packaged
    if on_path := shutil.which("rabbitmq-server", path=search_path):
        yield Path(on_path).resolve().parent


def runnable(directories: Iterable[Path]) -> Iterator[Path]:
    """Those that hold both scripts."""
    return (
        each
        for each in directories
        if (each / "rabbitmq-server").is_file() and (each / "rabbitmqctl").is_file()
    )


def find_epmd(search_path: str) -> Path | None:
    """Erlang's name server: on the path, or beside the `erl` that is."""
    if found := shutil.which("epmd", path=search_path):
        return Path(found)
    erl = shutil.which("erl", path=search_path)
    return next(Path(erl).resolve().parent.parent.glob("erts-*/bin/epmd"), None) if erl else None


def versions(installation: Installation) -> dict[str, str]:
    """The versions of `rabbitmq` and `erlang` as their files name them, or `unknown`; nothing is run."""
    plugins = installation.server.resolve().parent.parent / "plugins"
    rabbitmq = next(
        (
            each.name.removeprefix("rabbit-").removesuffix(".ez")
            for each in plugins.glob("rabbit-*")
        ),
        "unknown",
    )
    return {"rabbitmq": rabbitmq, "erlang": erlang_release(installation.search_path)}


def erlang_release(search_path: str) -> str:
    """Such as `25`: the second word of Erlang's own note about what it starts."""
    with contextlib.suppress(OSError, IndexError):
        erl = Path(shutil.which("erl", path=search_path) or "").resolve()
        return (
            (erl.parent.parent / "releases" / "start_erl.data")
            .read_text(encoding="utf-8")
            .split()[1]
        )
    return "unknown"
