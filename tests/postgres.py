"""A private PostgreSQL cluster for tests, from the programs that are installed on this machine.

The cluster listens only on 127.0.0.1. It survives the kill of its processes, but not a power
failure, because it does not wait for the disk. When this process ends, the cluster ends too.
"""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from typing import Any

from bus.operations.brokers.node_guard import die_with_parent
from bus.operations.brokers.ports import LOOPBACK, free_ports

__all__ = ["PostgresCluster", "find_programs"]

START, STOP = 120.0, 30.0
"""Seconds for a start, which takes 0.2 s on an idle machine, and for a stop."""
POLL = 0.02
USER, PASSWORD = "bus", "secret"
# Debian does not put the programs on the PATH.
PLACES = ("/usr/lib/postgresql", "/usr/local/lib/postgresql", "/opt/postgresql")
OPTIONS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "autovacuum_naptime": "5",
    "log_min_messages": "warning",
}


def find_programs() -> Path | None:
    """Return the directory with the programs of the newest PostgreSQL, or None."""
    found = [
        path.parent
        for place in PLACES
        for path in Path(place).glob("*/bin/initdb")
        if path.exists()
    ]
    if found:
        return max(found, key=lambda path: int("".join(filter(str.isdigit, path.parent.name)) or 0))
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _account() -> dict[str, Any]:
    """Return the arguments of `Popen` for an account that is not root, as PostgreSQL requires."""
    if os.geteuid():
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise AssertionError("root cannot run PostgreSQL. Create the account `postgres`.")


class PostgresCluster:
    """A PostgreSQL cluster. A test can kill it, and start it again on the same port."""

    def __init__(self, programs: Path, **options: str) -> None:
        """Choose the port.

        Args:
            programs: Directory of the programs.
            **options: Settings of the server, such as `max_connections="20"`.
        """
        self._programs = programs
        self._options = {**OPTIONS, **options}
        self._numbers = count(1)
        self._directory: Path | None = None
        self._server: subprocess.Popen[bytes] | None = None
        (self.port,) = free_ports(1)

    @property
    def is_running(self) -> bool:
        """True if the server was started and has not ended."""
        return self._server is not None and self._server.poll() is None

    @property
    def pid(self) -> int:
        """The id of the server's first process, which is the parent of the others."""
        assert self._server is not None, "the server is not started"
        return self._server.pid

    def url(self, database: str = "postgres") -> str:
        """Return `postgresql://bus:secret@127.0.0.1:<port>/<database>`."""
        return f"postgresql://{USER}:{PASSWORD}@{LOOPBACK}:{self.port}/{database}"

    def start(self) -> None:
        """Start the server, and return when it accepts connections."""
        if self.is_running:
            return
        if self._directory is None:
            self._directory = self._initialize()
        data = self._directory / "data"
        (data / "postmaster.pid").unlink(missing_ok=True)  # left by a killed server
        options = [f"--{name}={value}" for name, value in self._options.items()]
        with (self._directory / "log").open("ab") as log:
            server = self._server = subprocess.Popen(
                [self._programs / "postgres", "-D", data, "-p", str(self.port), *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                preexec_fn=die_with_parent(),  # noqa: PLW1509 - one call of the kernel, no lock
                **_account(),
            )
        deadline = time.monotonic() + START
        while not self._is_ready(data):
            if server.poll() is not None or time.monotonic() > deadline:
                text = (self._directory / "log").read_text(errors="replace")[-2000:]
                raise AssertionError(f"PostgreSQL did not start:\n{text}")
            time.sleep(POLL)

    def stop(self) -> None:
        """Stop the server, disconnect its clients, and remove its data."""
        self.shut_down()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def shut_down(self) -> None:
        """Stop the server as its operator does (*fast shutdown*). The data stays."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Kill the server and its processes without a shutdown. The data stays."""
        # An immediate shutdown: the processes exit without a checkpoint, as after a crash. The next
        # start replays the log. A kill of only the first process leaves the others for a moment.
        self._end(signal.SIGQUIT)

    def create_database(self, template: str = "template0") -> str:
        """Create an empty database, and return its URL."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database, and end the connections to it."""
        self.execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Run one statement in psql, and return its output without headings."""
        done = subprocess.run(
            [self._programs / "psql", "-XAtq", "-d", self.url(database), "-c", statement],
            capture_output=True,
            text=True,
            timeout=START,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _initialize(self) -> Path:
        directory = Path(tempfile.mkdtemp(prefix="bus-postgres-"))
        account = _account()
        if account:
            os.chown(directory, account["user"], account["group"])
        done = subprocess.run(
            [
                *(self._programs / "initdb", "-D", directory / "data", "-U", USER, "-A", "trust"),
                *("--no-sync", "--encoding=UTF8", "--locale=C", "--no-instructions"),
            ],
            capture_output=True,
            text=True,
            timeout=START,
            check=False,
            cwd="/",
            **account,
        )
        assert done.returncode == 0, done.stderr
        return directory

    def _is_ready(self, data: Path) -> bool:
        try:
            lines = (data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return bool(lines) and lines[-1].strip() == "ready"

    def _end(self, number: signal.Signals) -> None:
        if self._server is None:
            return
        if self.is_running:
            self._server.send_signal(number)
        try:
            self._server.wait(STOP)
        except subprocess.TimeoutExpired:
            self._server.kill()
            self._server.wait(STOP)
        self._server = None
