"""A private RabbitMQ node for development and tests.

The node uses free ports and a temporary directory. `PrivateNode.stop` removes the directory. The
node shares nothing with a RabbitMQ that runs as a service on the same machine. The private node has
separate ports, data, configuration and Erlang cookie. The private node also has a separate Erlang
name server (epmd). When the node ends, its epmd ends too.
"""

import asyncio
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
from urllib.parse import quote

from bus.errors import ConfigurationError, Unavailable
from bus.operations.brokers import node_guard
from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.installation import Installation
from bus.operations.brokers.node_files import (
    USER,
    new_node_name,
    node_environment,
    startup_error_lines,
    write_node_files,
)
from bus.operations.brokers.node_login import NodeLogin
from bus.operations.brokers.ports import (
    LOOPBACK,
    accepts,
    check_free,
    free_ports,
    port_in_use,
    speaks_amqp,
)
from bus.operations.brokers.rabbitmqctl import run_ctl
from bus.operations.management_api import Management

__all__ = ["PrivateNode"]

START_TIMEOUT_SECONDS = 60.0
"""Maximum seconds for a start.

A start takes 4 to 5 s on two idle cores. If several nodes start at the same time, each start takes
longer.
"""
STOP_TIMEOUT_SECONDS = node_guard.STOP_GRACE_SECONDS + 5.0
"""Maximum seconds for a stop.

The value exceeds `STOP_GRACE_SECONDS`. After `STOP_GRACE_SECONDS` the guard kills the node.
"""
CTL_TIMEOUT_SECONDS = 30.0
"""Maximum seconds for one call of rabbitmqctl. The start of Erlang in each call takes about 1 s."""
POLL_INTERVAL_SECONDS = 0.02
"""Seconds between two checks while the node starts or stops."""


class PrivateNode:
    """A RabbitMQ node on this machine. It listens only on 127.0.0.1.

    After `stop` or `kill` the node can be started again, on the same ports. The object can be used
    from any event loop, one call at a time. When this process ends, the node ends too, even if this
    process is killed.
    """

    def __init__(
        self,
        installation: Installation,
        *,
        config: Mapping[str, str] | None = None,
        plugins: Sequence[str] = (),
        options: BrokerOptions | None = None,
    ) -> None:
        """Choose the node's name, password and ports.

        Args:
            installation: The programs to run.
            config: Lines of rabbitmq.conf, such as `{"consumer_timeout": "5000"}`.
            plugins: Plugins to enable, in addition to the management UI.
            options: The ports and the password that the node must have. By default they are random.
        """
        self._installation = installation
        self._plugins = ("rabbitmq_management", *plugins)
        self._config = dict(config or {})
        options = options or BrokerOptions()
        self._name = new_node_name()
        self._password = options.password or secrets.token_urlsafe(12)
        self._guard: subprocess.Popen[bytes] | None = None
        self._directory: Path | None = None
        self._remove: Callable[[], object] = lambda: None
        self._locks: tuple[int, ...] = ()
        self._open_ports: tuple[int, ...] = ()
        self._chosen_ports = tuple(filter(None, (options.port, options.management_port)))
        free = free_ports(4, excluded=self._chosen_ports)
        self.port = options.port or free[0]
        self.management_port = options.management_port or free[1]
        self._dist_port, self._epmd_port = free[2:]

    @property
    def url(self) -> str:
        """`amqp://bus:<password>@127.0.0.1:<port>/`."""
        return f"amqp://{USER}:{quote(self._password, safe='')}@{LOOPBACK}:{self.port}/"

    @property
    def management_url(self) -> str:
        """The address of the management UI. The UI accepts the user and password in `url`."""
        return f"http://{LOOPBACK}:{self.management_port}"

    @property
    def directory(self) -> Path:
        """The directory with the node's log and configuration, and with its data if not kept.

        Raises:
            ConfigurationError: The node was not started, or was stopped.
        """
        if self._directory is None:
            raise ConfigurationError("the private node is not started. Call `start` first.")
        return self._directory

    @property
    def running(self) -> bool:
        """True if the node's processes were started and have not ended."""
        return self._guard is not None and self._guard.poll() is None

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of `guard`, `epmd` and `node`. Empty if the node is not running.

        These three processes are in the guard's process group.
        """
        if self._guard is None or not self.running:
            return {}
        children: dict[str, int] = json.loads(
            (self.directory / "pids.json").read_text(encoding="utf-8")
        )
        return {"guard": self._guard.pid, **children}

    def describe(self) -> str:
        """Return a description. It does not contain the password."""
        return f"a private RabbitMQ node of this machine on {LOOPBACK}:{self.port}"

    async def start(self) -> None:
        """Start the node. Return when clients can connect and the UI answers.

        Raises:
            Unavailable: The node did not start, or another program uses a port that the caller has
                chosen. The error contains the end of the node's log.
        """
        if self.running:
            return
        # If the node ended by itself, some of its processes may still run.
        await self._stop_processes(signal.SIGKILL)
        check_free(self._chosen_ports)
        if self._directory is None:
            self._make_directory()
        self._launch()
        try:
            await self._wait_ready()
        except BaseException:
            await self._stop_processes(signal.SIGKILL)
            raise

    async def stop(self) -> None:
        """Kill the node and remove its directory.

        A graceful stop would take 6 s. It would only tidy files that `stop` removes anyway.
        """
        await self._stop_processes(signal.SIGKILL)
        self._remove()
        self._directory = None

    async def kill(self) -> None:
        """Kill all processes of the node with SIGKILL, as in a power failure.

        The node's data is kept for the next `start`.
        """
        await self._stop_processes(signal.SIGKILL)

    async def restart(self) -> None:
        """Stop the node gracefully if it is running. Start the node with the same ports and data.

        The stop takes about 6 s, because of the management plugin.
        """
        await self.resume()
        await self._stop_processes(signal.SIGTERM)
        await self.start()

    async def pause(self) -> None:
        """Pause the node (SIGSTOP). Connections stay open, but the node does not answer."""
        os.kill(self.pids["node"], signal.SIGSTOP)

    async def resume(self) -> None:
        """Resume a paused node (SIGCONT). If the node is not paused, the call has no effect."""
        if pid := self.pids.get("node"):
            os.kill(pid, signal.SIGCONT)

    async def ctl(self, *arguments: str, timeout: float = CTL_TIMEOUT_SECONDS) -> str:
        """Return the output of `rabbitmqctl -q <arguments>`.

        Args:
            arguments: The command of rabbitmqctl, and the arguments of the command.
            timeout: Maximum seconds for the command.

        Raises:
            Unavailable: The command failed, or took longer than `timeout`.
        """
        program = self._installation.ctl
        return await run_ctl(program, arguments, self._environment(), timeout=timeout)

    def _make_directory(self) -> None:
        directory = Path(tempfile.mkdtemp(prefix="bus-rabbitmq-"))
        finalizer = weakref.finalize(self, shutil.rmtree, directory, ignore_errors=True)
        self._directory, self._remove = directory, finalizer
        self._write_files(directory)

    def _write_files(self, directory: Path) -> None:
        config = {"management.tcp.port": str(self.management_port), **self._config}
        write_node_files(directory, self._password, config, self._plugins)

    def _environment(self) -> dict[str, str]:
        """Return the node's environment."""
        environment = node_environment(self._installation, self.directory, self._name)
        return {
            **environment,
            "ERL_EPMD_PORT": str(self._epmd_port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_NODE_PORT": str(self.port),
        }

    def _launch(self) -> None:
        directory = self.directory
        (directory / "pids.json").unlink(missing_ok=True)
        self._open_ports = ()
        arguments = [self._installation.epmd, self._installation.server, *self._locks]
        with (directory / "output.log").open("wb") as output:
            self._guard = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    node_guard.__file__,
                    str(directory),
                    *map(str, arguments),
                ],
                env=self._environment(),
                cwd=directory,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=self._locks,
            )

    async def _wait_ready(self) -> None:
        """Wait until the AMQP port, the management port and the management API answer.

        RabbitMQ opens the AMQP port at the end of its start.
        """
        await self._until(
            lambda: self._raise_if_ended() or speaks_amqp(LOOPBACK, self.port),
            START_TIMEOUT_SECONDS,
            "answer on its AMQP port",
        )
        await self._until(
            lambda: self._raise_if_ended() or accepts(self.management_port),
            START_TIMEOUT_SECONDS,
            "open its management port",
        )
        await self._log_in()

    async def _log_in(self) -> None:
        """Wait until this node, and no other broker, answers with the password."""
        management = Management(self.management_url, self.url)
        login = NodeLogin(management, self._name, self.port, self._change_password)
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not self._raise_if_ended() and not await login.done():
            if time.monotonic() > deadline:
                raise self._late("accept its password", START_TIMEOUT_SECONDS)
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
        self._open_ports = (self.port, self.management_port)

    async def _change_password(self) -> None:
        try:
            await run_ctl(
                self._installation.ctl,
                ("change_password", USER),
                self._environment(),
                text=self._password,
                timeout=CTL_TIMEOUT_SECONDS,
            )
        except Unavailable:
            # If another broker has this node's ports, the node ends and cannot be changed.
            if self._guard is not None:
                await self._wait_ended(self._guard, STOP_TIMEOUT_SECONDS)
            self._raise_if_ended()
            raise

    def _raise_if_ended(self) -> bool:
        if self.running:
            return False
        if taken := next(filter(accepts, (self.port, self.management_port)), None):
            raise port_in_use(taken)
        raise Unavailable(
            f"the private RabbitMQ node ended during its start.{self._failure_details()}"
        )

    async def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(condition):
            if time.monotonic() > deadline:
                raise self._late(what, seconds)
            await asyncio.sleep(POLL_INTERVAL_SECONDS)

    def _late(self, what: str, seconds: float) -> Unavailable:
        return Unavailable(
            f"the private RabbitMQ node did not {what} within {seconds:g} s."
            f"{self._failure_details()}"
        )

    def _failure_details(self) -> str:
        """Return advice. Add the last lines that the node wrote before it failed."""
        files = [self.directory / "output.log", *sorted(self.directory.glob("log/*.log"))]
        advice = (
            "Check its `config`, and the free memory and disk space, "
            "or set BUS_URL to a RabbitMQ that is running."
        )
        return "\n".join([f" {advice} Its log contains:", *startup_error_lines(files)])

    async def _stop_processes(self, how: signal.Signals) -> None:
        """Send SIGTERM to stop the node gracefully, or SIGKILL to kill all processes of the node.

        Wait until the processes end.
        """
        if self._guard is None:
            return
        guard, self._guard = self._guard, None
        if how is signal.SIGTERM:
            guard.terminate()
            await self._wait_ended(guard, STOP_TIMEOUT_SECONDS)
        if guard.poll() is None:
            os.killpg(guard.pid, signal.SIGKILL)
        await self._wait_ended(guard, STOP_TIMEOUT_SECONDS)
        if guard.stdin:
            guard.stdin.close()
        # If the node did not open its ports, another program can listen on them.
        ports = (*self._open_ports, self._dist_port, self._epmd_port)
        await self._until(
            lambda: not any(map(accepts, ports)), STOP_TIMEOUT_SECONDS, "release its ports"
        )

    async def _wait_ended(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while process.poll() is None and time.monotonic() < deadline:
            await asyncio.sleep(POLL_INTERVAL_SECONDS)
