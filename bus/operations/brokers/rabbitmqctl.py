"""Calls of rabbitmqctl on this machine."""

import asyncio
import contextlib
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from bus.errors import Unavailable

__all__ = ["run_ctl"]

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
"""An escape sequence with which rabbitmqctl emphasizes words, even if no terminal reads them."""


async def run_ctl(
    program: Path,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    text: str | None = None,
    timeout: float,
) -> str:
    """Return the output of `rabbitmqctl -q <arguments>`.

    Args:
        program: The path of rabbitmqctl.
        arguments: The command of rabbitmqctl, and the arguments of the command.
        environment: The node's environment.
        text: The line for the command's standard input. Secrets are passed in this way, because
            other users can see the arguments of a process.
        timeout: Maximum seconds for the command.

    Raises:
        Unavailable: The command failed, or took longer than `timeout`.
    """
    process = await asyncio.create_subprocess_exec(
        program,
        "-q",
        *arguments,
        env=environment,
        stdin=subprocess.DEVNULL if text is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    line = None if text is None else f"{text}\n".encode()
    try:
        output, errors = await asyncio.wait_for(process.communicate(line), timeout)
    except TimeoutError as error:
        raise Unavailable(
            f"rabbitmqctl {arguments[0]} did not finish within {timeout:g} s"
        ) from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        reason = COLOUR.sub("", errors.decode(errors="replace")).strip()
        raise Unavailable(f"rabbitmqctl {arguments[0]} failed: {reason}")
    return output.decode()
