"""A RabbitMQ node of one's own: free ports, a temporary directory, nothing left when it ends.

It shares nothing with a RabbitMQ that runs as a service on the same machine: neither ports, data, configuration,
Erlang cookie nor the Erlang name server (epmd), which is private too and ends with the node.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bus.errors import ConfigurationError, Unavailable
from bus.operations.brokers import node_guard
from bus.operations.brokers.installation import Installation
from bus.operations.brokers.ports import LOOPBACK, accepts, free_ports, speaks_amqp
from bus.operations.management_api import Management

__all__ = ["PrivateNode"]

START_TIMEOUT_SECONDS = (
    60.0  # seconds; 4 to 5 on two idle cores, and several nodes may start at once
)
STOP_TIMEOUT_SECONDS = (
    node_guard.STOP_GRACE_SECONDS + 5.0
)  # seconds; the guard ends the node by force before
CTL_TIMEOUT_SECONDS = 30.0  # seconds for one rabbitmqctl; it starts an Erlang of its own, about 1 s
POLL_INTERVAL_SECONDS = 0.02  # seconds between two looks at something that is awaited
LOG_LINES = 15
USER = "bus"

# What a node in a temporary directory needs; whatever is passed as `config` wins.
DEFAULTS = {
    "default_user": USER,
    "management.tcp.ip": LOOPBACK,
    "log.console": "false",  # the script's own words go to output.log, the node's to log/rabbit.log
    "log.file": "rabbit.log",
    "disk_free_limit.absolute": "1MB",  # the default alarm blocks publishers on a laptop's nearly full disk
    "vm_memory_high_watermark.absolute": "1GB",  # the default is a share of a machine that this node does not own
    "raft.wal_max_size_bytes": "67108864",  # 64 MiB instead of 512: the quorum queues' log is kept in memory up to here
}


class PrivateNode:
    """One node on this machine, on 127.0.0.1 only. Start it again after `stop` or `kill` and it has the same ports.

    Usable from any event loop, one call at a time. It ends with this process, even when that is killed.
    """

    def __init__(
        self,
        installation: Installation,
        *,
        config: Mapping[str, str] | None = None,
        plugins: Sequence[str] = (),
    ) -> None:
        """`config` is lines of rabbitmq.conf: `{"consumer_timeout": "5000"}`. `plugins` run beside the management UI."""
        self._installation = installation
        self._plugins = ("rabbitmq_management", *plugins)
        self._config = dict(config or {})
        self._name = f"bus-{secrets.token_hex(4)}@localhost"
        self._password = secrets.token_urlsafe(12)
        self._guard: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._remove: Callable[[], object] = lambda: None
        self.port, self.management_port, self._dist_port, self._epmd_port = free_ports(4)

    @property
    def url(self) -> str:
        """`amqp://bus:<password>@127.0.0.1:<port>/`."""
        return f"amqp://{USER}:{self._password}@{LOOPBACK}:{self.port}/"

    @property
    def management_url(self) -> str:
        """The management UI's address, for the user and password of `url`."""
        return f"http://{LOOPBACK}:{self.management_port}"

    @property
    def directory(self) -> Path:
        """Where its data, log and configuration are; `ConfigurationError` before `start` and after `stop`."""
        if self._directory is None:
            raise ConfigurationError("the private node was not started")
        return self._directory

    @property
    def running(self) -> bool:
        """Whether its processes were started and have not ended."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of `guard`, `epmd` and `node`, all in the guard's process group; empty when it is not running."""
        if self._guard is None or not self.running:
            return {}
        children: dict[str, int] = json.loads(
            (self.directory / "pids.json").read_text(encoding="utf-8")
        )
        return {"guard": self._guard.pid, **children}

    def describe(self) -> str:
        """What this is, without the password."""
        return f"a private RabbitMQ node of this machine on {LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Return once clients can connect and the UI answers; `Unavailable` with the log's end where that fails."""
        if self.running:
            return
        await self._end(signal.SIGKILL)  # what is left of one that ended by itself
        if self._directory is None:
            self._make_directory()
        self._launch()
        try:
            await self._ready()
        except BaseException:
            await self._end(signal.SIGKILL)
            raise

    async def stop(self) -> None:
        """End it and remove its directory; at once, since in order takes 6 s and tidies what is removed anyway."""
        await self._end(signal.SIGKILL)
        self._remove()
        self._directory = None

    async def kill(self) -> None:
        """SIGKILL every process of the node at once, as a power cut would; its data stay for `start`."""
        await self._end(signal.SIGKILL)

    async def restart(self) -> None:
        """End it in order if it runs (about 6 s: the management plugin's), and start it on the same ports and data."""
        await self.resume()
        await self._end(signal.SIGTERM)
        await self.start()

    async def pause(self) -> None:
        """SIGSTOP the node: connections stay open and nothing answers."""
        os.kill(self.pids["node"], signal.SIGSTOP)

    async def resume(self) -> None:
        """SIGCONT a paused node; nothing happens to one that is not paused."""
        if pid := self.pids.get("node"):
            os.kill(pid, signal.SIGCONT)

    async def ctl(self, *arguments: str, timeout: float = CTL_TIMEOUT_SECONDS) -> str:
        """What `rabbitmqctl -q <arguments>` prints; `Unavailable` with its complaint where it fails or takes too long."""
        process = await asyncio.create_subprocess_exec(
            self._installation.ctl,
            "-q",
            *arguments,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            output, complaint = await asyncio.wait_for(process.communicate(), timeout)
        except TimeoutError as error:
            raise Unavailable(f"rabbitmqctl {arguments[0]} took over {timeout:g} s") from error
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            raise Unavailable(
                f"rabbitmqctl {arguments[0]}: {complaint.decode(errors='replace').strip()}"
            )
        return output.decode()

    def _make_directory(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="bus-rabbitmq-"))
        finalizer = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        self._directory, self._remove = directory, finalizer
        config = {
            **DEFAULTS,
            "default_pass": self._password,
            "management.tcp.port": str(self.management_port),
            **self._config,
        }
        (directory / "rabbitmq.conf").write_text(
            "".join(f"{key} = {value}\n" for key, value in config.items()), encoding="utf-8"
        )
        (directory / "plugins").write_text(f"[{','.join(self._plugins)}].\n", encoding="utf-8")
        (directory / "empty.conf").touch()
        cookie = directory / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(20), encoding="ascii")
        cookie.chmod(0o400)  # Erlang refuses one that others can read

    def _environment(self) -> dict[str, str]:
        """Nothing of the caller's but the path: its `RABBITMQ_*` and `ERL_*` variables are about another node."""
        directory = self.directory
        loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
        return {
            "PATH": self._installation.search_path,
            "HOME": str(directory),
            "LANG": "C.UTF-8",
            "ERL_CRASH_DUMP_SECONDS": "0",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_FLAGS": "-start_epmd false",  # ours is there; one that Erlang started would outlive the node
            "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
            "RABBITMQ_CONFIG_FILES": str(directory / "conf.d"),
            "RABBITMQ_CONF_ENV_FILE": str(
                directory / "empty.conf"
            ),  # not this machine's /etc/rabbitmq/rabbitmq-env.conf
            "RABBITMQ_CTL_ERL_ARGS": loopback,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
            "RABBITMQ_LOG_BASE": str(directory / "log"),
            "RABBITMQ_MNESIA_BASE": str(directory / "data"),
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": loopback,
            "RUNNING_UNDER_SYSTEMD": "true",  # the script then becomes Erlang instead of starting it: one process, one pid
        }

    def _launch(self) -> None:
        directory = self.directory
        (directory / "pids.json").unlink(missing_ok=True)
        programs = [str(self._installation.epmd), str(self._installation.server)]
        with (directory / "output.log").open("wb") as output:
            self._guard = subprocess.Popen(
                [sys.executable, "-I", "-S", node_guard.__file__, str(directory), *programs],
                env=self._environment(),
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def _ready(self) -> None:
        """AMQP greets (RabbitMQ opens its listeners last), then the UI's API takes the password."""
        await self._until(
            lambda: self._ended() or speaks_amqp(LOOPBACK, self.port),
            START_TIMEOUT_SECONDS,
            "answer on its AMQP port",
        )
        await self._until(
            lambda: self._ended() or accepts(self.management_port),
            START_TIMEOUT_SECONDS,
            "open its management port",
        )
        await Management(self.management_url, self.url).call("GET", "whoami")

    def _ended(self) -> bool:
        if self.running:
            return False
        raise Unavailable(f"the private RabbitMQ node ended while it started.{self._log()}")

    async def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(condition):
            if time.monotonic() > deadline:
                raise Unavailable(
                    f"the private RabbitMQ node did not {what} within {seconds:g} s.{self._log()}"
                )
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    def _log(self) -> str:
        """What it wrote before it failed, and what to do."""
        written = [self.directory / "output.log", *sorted(self.directory.glob("log/*.log"))]
        advice = "Check its `config`, free memory and disk; or set BUS_URL to a RabbitMQ that runs."
        return "\n".join([f" {advice} It wrote:", *startup_error_lines(written)])

    async def _end(self, how: signal.Signals) -> None:
        """Signal the guard to end the node in order, or kill the whole group; then wait until nothing of it is left."""
        if self._guard is None:
            return
        guarding, self._guard = self._guard, None
        if how is signal.SIGTERM:
            guarding.terminate()
            await self._gone(guarding, STOP_TIMEOUT_SECONDS)
        if guarding.poll() is None:
            os.killpg(guarding.pid, signal.SIGKILL)
        await self._gone(guarding, STOP_TIMEOUT_SECONDS)
        if guarding.stdin:
            guarding.stdin.close()
        ports = (self.port, self.management_port, self._dist_port, self._epmd_port)
        await self._until(
            lambda: not any(map(accepts, ports)), STOP_TIMEOUT_SECONDS, "let go of its ports"
        )

    async def _gone(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(POLL_INTERVAL_SECONDS)


def startup_error_lines(files: list[Path]) -> list[str]:
    """The lines before RabbitMQ's first `BOOT FAILED`, where it says why; pages of supervisors' reports follow it. Else the last lines."""
    lines = [
        line
        for file in files
        if file.exists()
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    end = next((number for number, line in enumerate(lines) if "BOOT FAILED" in line), len(lines))
    return lines[max(end - LOG_LINES, 0) : end]
