"""Changes of the Python files in the working directory, for `bus run --reload`."""

import asyncio
import importlib
import sys
from pathlib import Path
from typing import Any

from bus.errors import ConfigurationError

__all__ = ["CodeChanges", "load_watchfiles", "watch"]


class CodeChanges:
    """The changes of Python files, which are counted so that no process misses one."""

    def __init__(self) -> None:
        self.count = 0
        self._changed = asyncio.Event()

    def add(self) -> None:
        """Count a change, and wake all waiters."""
        self.count += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def wait_after(self, count: int) -> None:
        """Wait until more than `count` changes have occurred."""
        while self.count <= count:
            await self._changed.wait()


def load_watchfiles() -> Any:
    """Import `watchfiles`. It is imported only here, because only `--reload` requires it."""
    try:
        return importlib.import_module("watchfiles")
    except ModuleNotFoundError:
        raise ConfigurationError(
            "--reload requires watchfiles, which is not installed. "
            "Install it: pip install 'trunkline[reload]'."
        ) from None


async def watch(watchfiles: Any, changes: CodeChanges) -> None:
    """Count a change whenever a Python file in this folder or below changes."""
    try:
        async for _ in watchfiles.awatch(Path.cwd(), watch_filter=watchfiles.PythonFilter()):
            print("bus run: the code has changed; restarting", file=sys.stderr)  # noqa: T201
            changes.add()
    except Exception as error:  # noqa: BLE001 - for example the system's limit of watched files
        print(  # noqa: T201 - the parent has no log
            f"bus run: the files of {Path.cwd()} can no longer be watched "
            f"({type(error).__name__}: {error}). Restart the command to use a change",
            file=sys.stderr,
        )
