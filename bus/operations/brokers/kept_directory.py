"""The directory in which a private node keeps its data between two runs.

The directory also keeps the node's name, ports and password, so that the broker has the same URL
after the next start. A lock in the directory lets only one node use it at a time.
"""

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import stat
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from bus.errors import ConfigurationError, Unavailable
from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.node_files import new_node_name
from bus.security.secret_files import GROUP_AND_OTHERS

__all__ = ["KeptDirectory", "NodeState"]

STATE, FRESH_STATE, LOCK = "broker.json", "broker.json.new", "lock"
OWNER_ONLY = stat.S_IRWXU


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """The properties of a node that stay the same after a restart."""

    name: str = field(default_factory=new_node_name)
    """Name of the Erlang node. RabbitMQ finds its data by this name."""
    password: str = field(default_factory=lambda: secrets.token_urlsafe(12), repr=False)
    port: int | None = None
    management_port: int | None = None
    rabbitmq: str | None = None
    """Version of the RabbitMQ that wrote the data. None: no node has started yet."""

    def updated(self, options: BrokerOptions) -> "NodeState":
        """Return the state with the options that are set."""
        return replace(
            self,
            port=options.port or self.port,
            management_port=options.management_port or self.management_port,
            password=options.password or self.password,
        )


class KeptDirectory:
    """A locked directory with the data of one node."""

    def __init__(self, path: Path) -> None:
        """Create or check the directory, lock it, and read its state.

        Args:
            path: The directory. It may be missing or empty. Any other directory must be one that
                this class created.

        Raises:
            ConfigurationError: The directory belongs to another user, has other files, or cannot
                be used.
            Unavailable: Another node uses the directory.
        """
        self.path = path
        """The directory, as an absolute path."""
        self._lock: int | None = None
        try:
            self.path = path.resolve()
            _prepare(self.path)
            self.lock()
            self.state = self._read()
        except (OSError, ValueError, RuntimeError) as error:  # a null byte, a loop of links
            self.unlock()
            problem = error.strerror if isinstance(error, OSError) else "the path is not valid"
            raise ConfigurationError(
                f"{self.path} cannot keep a broker's data: {problem}. Name another directory."
            ) from None
        except BaseException:
            self.unlock()
            raise

    def lock(self) -> int:
        """Lock the directory, unless it is locked. Return the file descriptor of the lock.

        The lock lasts until `unlock`, and until each process has ended that inherits the file
        descriptor. So a node that still stops keeps its directory.

        Raises:
            Unavailable: Another node uses the directory.
        """
        if self._lock is None:
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                raise Unavailable(
                    f"{self.path} is in use by another broker, which runs or still stops. "
                    "Stop that broker with Ctrl-C, or name another directory."
                ) from None
            self._lock = lock
        return self._lock

    def unlock(self) -> None:
        """Release the lock. A second call has no effect."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def check_version(self, installed: str) -> None:
        """Check that the installed RabbitMQ is not older than the data.

        Raises:
            ConfigurationError: It is older. RabbitMQ cannot go back to an earlier version.
        """
        written, own = (_parse_version(text) for text in (self.state.rabbitmq or "", installed))
        if written and own and own[:2] < written[:2]:
            raise ConfigurationError(
                f"{self.path} was written by RabbitMQ {self.state.rabbitmq}, which is newer than "
                f"the installed {installed}. Install RabbitMQ {self.state.rabbitmq} or later, or "
                "name another directory."
            )

    def describe_upgrade(self, installed: str) -> str:
        """Return a sentence about a change of RabbitMQ's version, or an empty string."""
        if not self.is_upgraded(installed):
            return ""
        return (
            f"{self.path} was written by RabbitMQ {self.state.rabbitmq}, and RabbitMQ {installed} "
            "did not start with it. Check that RabbitMQ supports this upgrade in one step, or name "
            "another directory. "
        )

    def is_upgraded(self, installed: str) -> bool:
        """Return True if another version of RabbitMQ has written the data."""
        return self.state.rabbitmq not in {None, installed}

    def save(self, state: NodeState) -> None:
        """Write the state. A crash leaves either the old or the new state."""
        self.state = state
        fresh = self.path / FRESH_STATE
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(state), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / STATE)

    def tidy(self) -> None:
        """Prepare the directory for a start.

        Git ignores the directory, because it has a password. The logs of the last run are renamed,
        so that errors are searched only in this run's logs. If the first start was interrupted, its
        incomplete data is removed.
        """
        (self.path / ".gitignore").write_text("*\n", encoding="ascii")
        for log in self.path.glob("log/*.log"):
            log.replace(log.with_suffix(".old"))
        if self.state.rabbitmq is None:
            shutil.rmtree(self.path / "data", ignore_errors=True)

    def _read(self) -> NodeState:
        try:
            content = (self.path / STATE).read_bytes()
        except FileNotFoundError:
            return NodeState()
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            return _parse_state(**json.loads(content))
        raise ConfigurationError(
            f"{self.path / STATE} is not valid. Restore the file, or name another directory."
        )


def _prepare(path: Path) -> None:
    """Create the directory for its owner only, or check an existing one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=OWNER_ONLY)
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"{path} is not a directory. Name a directory.")
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{path} belongs to another user, who can read the data. Name a directory of your own."
        )
    names = {entry.name for entry in path.iterdir()}
    if not names - {LOCK, FRESH_STATE}:
        path.chmod(OWNER_ONLY)
    elif STATE not in names:
        raise ConfigurationError(
            f"{path} has other files than a broker's data. Name a new or empty directory."
        )
    elif found.st_mode & GROUP_AND_OTHERS:
        raise ConfigurationError(
            f"{path} has mode {stat.S_IMODE(found.st_mode):o}, so other users can reach the data. "
            f"Run `chmod 700 {path}`."
        )


def _parse_state(
    *,
    name: object,
    password: object,
    port: object,
    management_port: object,
    rabbitmq: object,
) -> NodeState:
    """Return the state that the file contains.

    Raises:
        TypeError: A value is missing, is not known, or has another type.
    """
    if (
        isinstance(name, str)
        and isinstance(password, str)
        and isinstance(port, int)
        and isinstance(management_port, int)
        and isinstance(rabbitmq, str | None)
    ):
        return NodeState(
            name=name,
            password=password,
            port=port,
            management_port=management_port,
            rabbitmq=rabbitmq,
        )
    raise TypeError(STATE)


def _parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers of `3.10.8`, or an empty tuple if the text is not a version."""
    parts = text.partition("-")[0].split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
