"""A private PostgreSQL for the durable jobs, with the durable defaults of PostgreSQL."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.actor import RunFailed
from benchmarks.environments import Absent

__all__ = ["Server", "found", "private_server"]

USER = "bench"
READY = 30.0
"""Seconds for the server to accept connections."""
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "unix_socket_directories": "",
}
"""Where it listens. All other settings are the defaults: `fsync` and `synchronous_commit` are on,
`shared_buffers` is 128 MB."""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server."""

    port: int
    pid: int
    """The process id of its postmaster, which is the parent of all its processes."""
    version: str

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"


def found() -> Path:
    """Return the directory of the newest installed PostgreSQL's programs; raise `Absent`."""
    on_path = shutil.which("initdb")
    if on_path:
        return Path(on_path).resolve().parent
    versions = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3])
    )
    if not versions:
        raise Absent("no PostgreSQL server (Debian, Ubuntu: apt-get install postgresql)")
    return versions[-1].parent


def as_owner(command: Sequence[str]) -> list[str]:
    """Return the command for a user that PostgreSQL accepts, since it refuses root."""
    if os.geteuid() != 0:
        return list(command)
    owner = account()
    return [
        "setpriv",
        f"--reuid={owner.pw_uid}",
        f"--regid={owner.pw_gid}",
        "--clear-groups",
        *command,
    ]


def account() -> pwd.struct_passwd:
    """Return the account that owns the server if this process is root."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise Absent("PostgreSQL does not run as root, and there is no user postgres or nobody")


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def private_server() -> AsyncIterator[Server]:
    """Yield a private server in a temporary directory, which is deleted at the end.

    Raise `Absent` if PostgreSQL is not installed, and `RunFailed` if it does not start.
    """
    programs = found()
    with tempfile.TemporaryDirectory(prefix="bench-postgres-", ignore_cleanup_errors=True) as home:
        folder = Path(home)
        if os.geteuid() == 0:
            os.chown(folder, account().pw_uid, account().pw_gid)
        data, log = folder / "data", folder / "log"
        created = subprocess.run(
            as_owner(
                [
                    *(str(programs / "initdb"), "--pgdata", str(data), "--username", USER),
                    *("--auth", "trust", "--encoding", "UTF8", "--no-locale"),
                ]
            ),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=folder,
        )
        if created.returncode:
            raise RunFailed(f"initdb failed: {created.stderr.strip()[-300:]}")
        port = free_port()
        settings = [f"--{name}={value}" for name, value in {**SETTINGS, "port": port}.items()]
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                *as_owner([str(programs / "postgres"), "-D", str(data), *settings]),
                stdout=output,
                stderr=output,
                cwd=folder,
                start_new_session=True,
            )
        try:
            await accepting(process, port, log)
            yield Server(port=port, pid=process.pid, version=version(programs))
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)  # fast shutdown: ends all sessions
            await process.wait()


async def accepting(process: asyncio.subprocess.Process, port: int, log: Path) -> None:
    """Wait until the server accepts connections."""
    limit = asyncio.get_running_loop().time() + READY
    while process.returncode is None and asyncio.get_running_loop().time() < limit:
        if b"ready to accept connections" in log.read_bytes():
            return
        await asyncio.sleep(0.05)
    raise RunFailed(f"PostgreSQL did not start on port {port}: {log.read_text()[-300:]}")


def version(programs: Path) -> str:
    """Return the version of the server, such as `15.18`."""
    said = subprocess.run(
        [str(programs / "postgres"), "--version"], capture_output=True, text=True, check=True
    )
    return said.stdout.split()[2]
