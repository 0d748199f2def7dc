"""The files and the environment of a private node."""

import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

from bus.operations.brokers.installation import Installation
from bus.operations.brokers.ports import LOOPBACK

__all__ = [
    "DEFAULTS",
    "USER",
    "new_node_name",
    "node_environment",
    "startup_error_lines",
    "write_node_files",
]

LOG_LINES = 15
CONF_WORD = re.compile(r"[A-Za-z0-9_-]+")
"""Passwords that rabbitmq.conf can hold in every version of RabbitMQ."""
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


def new_node_name() -> str:
    """Return a name for an Erlang node that no other node of this machine has."""
    return f"bus-{secrets.token_hex(4)}@localhost"


def write_node_files(
    directory: Path, password: str, config: Mapping[str, str], plugins: Sequence[str]
) -> None:
    """Write the files that a node reads when it starts.

    Args:
        directory: The node's directory.
        password: The password of `USER` in ASCII. If the node already has data, it has no effect.
        config: Lines of rabbitmq.conf. They override `DEFAULTS`.
        plugins: The plugins to enable.
    """
    lines = {**DEFAULTS, **config}
    if CONF_WORD.fullmatch(password):
        lines["default_pass"] = password
    (directory / "rabbitmq.conf").write_text(
        "".join(f"{key} = {value}\n" for key, value in lines.items()), encoding="utf-8"
    )
    (directory / "advanced.config").write_text(format_advanced_config(password), encoding="ascii")
    (directory / "plugins").write_text(f"[{','.join(plugins)}].\n", encoding="utf-8")
    (directory / "empty.conf").touch()
    cookie = directory / ".erlang.cookie"
    cookie.unlink(missing_ok=True)
    cookie.write_text(secrets.token_hex(20), encoding="ascii")
    # Erlang rejects a cookie file that other users can read.
    cookie.chmod(0o400)


def format_advanced_config(password: str) -> str:
    """Return a configuration in Erlang, which can hold a password that rabbitmq.conf cannot."""
    escaped = password.replace("\\", r"\\").replace('"', r"\"")
    return f'[{{rabbit, [{{default_pass, <<"{escaped}">>}}]}}].\n'


def node_environment(installation: Installation, directory: Path, name: str) -> dict[str, str]:
    """Return the environment of the node `name`, without its ports.

    The `RABBITMQ_*` and `ERL_*` variables of this process are not copied, because they can belong
    to another node.
    """
    loopback = "-kernel inet_dist_use_interface {127,0,0,1}"
    return {
        "PATH": installation.search_path,
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "ERL_CRASH_DUMP_SECONDS": "0",
        # The guard starts epmd. If Erlang started epmd, epmd would outlive the node.
        "ERL_FLAGS": "-start_epmd false",
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(directory / "conf.d"),
        # The empty file replaces this machine's /etc/rabbitmq/rabbitmq-env.conf.
        "RABBITMQ_CONF_ENV_FILE": str(directory / "empty.conf"),
        "RABBITMQ_CTL_ERL_ARGS": loopback,
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "plugins"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_NODENAME": name,
        "RABBITMQ_NODE_IP_ADDRESS": LOOPBACK,
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": loopback,
        # With this variable the script replaces itself with Erlang (exec). So the node has the
        # process id of the script.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


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
