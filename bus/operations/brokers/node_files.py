"""The files in the directory of a private node: its configuration, cookie and logs."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from bus.operations.brokers.ports import LOOPBACK

__all__ = ["DEFAULTS", "USER", "startup_error_lines", "write_node_files"]

LOG_LINES = 15
USER = "bus"

DEFAULTS = {
    "default_user": USER,
    "management.tcp.ip": LOOPBACK,
    # The node logs to log/rabbit.log. The start script writes to output.log.
    "log.console": "false",
    "log.file": "rabbit.log",
    # The default alarm would block publishers on a laptop with a nearly full disk.
    "disk_free_limit.absolute": "1MB",
    # The default is a large part of the machine's memory, but other programs need memory.
    "vm_memory_high_watermark.absolute": "1GB",
    # RabbitMQ keeps the log of quorum queues in memory up to this size. The default is 512 MiB.
    "raft.wal_max_size_bytes": "67108864",
}
"""Settings in the rabbitmq.conf of each private node. The argument `config` overrides them."""


def write_node_files(directory: Path, config: Mapping[str, str], plugins: Sequence[str]) -> None:
    """Write the files that a node reads when it starts.

    Args:
        directory: The node's directory.
        config: Lines of rabbitmq.conf. They override `DEFAULTS`.
        plugins: The plugins to enable.
    """
    lines = {**DEFAULTS, **config}
    (directory / "rabbitmq.conf").write_text(
        "".join(f"{key} = {value}\n" for key, value in lines.items()), encoding="utf-8"
    )
    (directory / "plugins").write_text(f"[{','.join(plugins)}].\n", encoding="utf-8")
    (directory / "empty.conf").touch()
    cookie = directory / ".erlang.cookie"
    cookie.write_text(secrets.token_hex(20), encoding="ascii")
    # Erlang rejects a cookie file that other users can read.
    cookie.chmod(0o400)


def startup_error_lines(files: list[Path]) -> list[str]:
    """Return the log lines that contain the reason of a failed start.

    The reason is before the first `BOOT FAILED`. Long supervisor reports follow `BOOT FAILED`.
    If the log does not contain `BOOT FAILED`, return the last lines.
    """
    lines = [
        line
        for file in files
        if file.exists()
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    end = next((number for number, line in enumerate(lines) if "BOOT FAILED" in line), len(lines))
    return lines[max(end - LOG_LINES, 0) : end]
