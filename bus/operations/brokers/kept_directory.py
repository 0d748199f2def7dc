"""The directory in which a private node keeps its data between two runs.

The directory also keeps the node's name, ports and password, so that the broker has the same URL
after the next start. A lock in the directory lets only one node use it at a time.

A directory can come from another user, for example with a cloned repository. RabbitMQ trusts its
data, so the directory has a mark that is true only in the place where this program created it. The
node reads and writes its other files in a directory that is new for each run.
"""

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import stat
from pathlib import Path

from bus.errors import ConfigurationError, Unavailable
from bus.operations.brokers.node_state import NodeState
from bus.security.secret_files import GROUP_AND_OTHERS

__all__ = ["KeptDirectory"]

STATE, MARK, LOCK, FRESH = "broker.json", "inode", "lock", "new"
RUN, LAST_RUN, DATA = "run", "last-run", "data"
UNUSED = frozenset({LOCK, FRESH, MARK})
"""Files of a directory in which no node has started."""
OWNER_ONLY = stat.S_IRWXU
MAX_FILE_BYTES = 16 * 1024
INODE = re.compile(r"\s*([0-9]{1,20})\b")
"""Start of the file `inode`. `ls -di` writes the directory after it."""


class KeptDirectory:
    """A locked directory with the data of one node."""

    def __init__(self, path: Path) -> None:
        """Create or check the directory, lock it, and read its state.

        Args:
            path: The directory. It may be missing or empty. Any other directory must be one that
                this class created.

        Raises:
            ConfigurationError: The directory belongs to another user, has other files, was created
                in another place, or cannot be used.
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
            raise self.unsuitable(error) from None
        except BaseException:
            self.unlock()
            raise

    @property
    def exists(self) -> bool:
        """True if the directory still has the state that the next start needs."""
        return (self.path / STATE).is_file()

    @property
    def data(self) -> Path:
        """The directory with RabbitMQ's database."""
        return self.path / DATA

    def unsuitable(self, error: Exception) -> ConfigurationError:
        """Return the error for a directory that the operating system refuses to use."""
        problem = error.strerror if isinstance(error, OSError) else "the path is not valid"
        return ConfigurationError(
            f"{self.path} cannot keep a broker's data: {problem}. Name another directory."
        )

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
        """Write the state. A crash leaves either the old or the new state.

        Raises:
            ConfigurationError: The directory is gone, or cannot be written.
        """
        self.state = state
        try:
            self._write(MARK, f"{self.path.stat().st_ino}\n")
            self._write(STATE, state.as_json())
        except OSError as error:
            raise self.unsuitable(error) from None

    def prepare_run(self) -> Path:
        """Prepare the directory for a start. Return a new directory for the files of this run.

        Git ignores the directory, because it has a password. The files of the last run stay in
        `last-run`. If the first start was interrupted, its incomplete data is removed.
        """
        self._write(".gitignore", "*\n")
        if self.state.rabbitmq is None:
            shutil.rmtree(self.data, ignore_errors=True)
        run, last = self.path / RUN, self.path / LAST_RUN
        if run.exists():
            shutil.rmtree(last, ignore_errors=True)
            run.replace(last)
        run.mkdir(mode=OWNER_ONLY)
        return run

    def _write(self, name: str, text: str) -> None:
        """Replace a file. If the name is a link, replace the link instead of its target."""
        fresh = self.path / FRESH
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.path / name)

    def _read(self) -> NodeState:
        try:
            return NodeState.from_json(_read_regular(self.path / STATE))
        except FileNotFoundError:
            return NodeState()
        except ValueError:
            raise ConfigurationError(
                f"{self.path / STATE} is not valid. Restore the file, or name another directory."
            ) from None


def _prepare(path: Path) -> None:
    """Create the directory for its owner only, or check an existing one."""
    if not path.parent.is_dir():
        raise ConfigurationError(
            f"the directory {path.parent} does not exist, so {path} cannot be created. "
            "Create it, or name another directory."
        )
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=OWNER_ONLY)
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigurationError(f"{path} is not a directory. Name a directory.")
    if found.st_uid != os.geteuid():
        raise ConfigurationError(
            f"{path} belongs to another user, who can read the data. Name a directory of your own."
        )
    entries = {entry.name: entry for entry in path.iterdir()}
    if link := next((entry for entry in entries.values() if entry.is_symlink()), None):
        raise ConfigurationError(
            f"{link} is a link, which `bus broker` did not create. Name a new or empty directory."
        )
    if entries.keys() <= UNUSED:
        path.chmod(OWNER_ONLY)
    elif STATE not in entries:
        raise ConfigurationError(
            f"{path} has other files than a broker's data. Name a new or empty directory."
        )
    elif found.st_mode & GROUP_AND_OTHERS:
        raise ConfigurationError(
            f"{path} has mode {stat.S_IMODE(found.st_mode):o}, so other users can reach the data. "
            f"Run `chmod 700 {shlex.quote(str(path))}`."
        )
    else:
        _check_mark(path, found.st_ino)


def _check_mark(path: Path, inode: int) -> None:
    """Check that the directory is the one that this program created, and not a copy.

    The number of its inode shows it. The author of a repository does not know the number that a
    clone gets.
    """
    with contextlib.suppress(FileNotFoundError, ValueError):
        mark = INODE.match(_read_regular(path / MARK))
        if mark and int(mark[1]) == inode:
            return
    raise ConfigurationError(
        f"{path} is a copy, or came with other files, so another user can have written its data. "
        "Name a new directory. If you copied it yourself, run "
        f"`ls -di {shlex.quote(str(path))} > {shlex.quote(str(path / MARK))}`."
    )


def _read_regular(path: Path) -> str:
    """Return the text of a small regular file. Follow no link, and wait for no writer of a pipe.

    Raises:
        OSError: The file cannot be opened.
        ValueError: The file is not a regular file, is too large, or is not UTF-8 text.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError(path.name)
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(path.name)
    return content.decode()


def _parse_version(text: str) -> tuple[int, ...]:
    """Return the numbers of `3.10.8`, or an empty tuple if the text is not a version."""
    parts = text.partition("-")[0].split(".")
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()
