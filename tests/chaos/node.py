"""A private node with short internal intervals, which a campaign may kill."""

from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from bus.operations.brokers.private_node import PrivateNode

__all__ = ["ChaosNode"]

PATIENCE = 180.0
"""Seconds for a start or one `rabbitmqctl` on a busy machine.

Both start an Erlang, which takes seconds of processor time.
"""
# By default RabbitMQ's dead-letter worker publishes a refused message again after three minutes.
ADVANCED = """\
[{rabbit, [
  {dead_letter_worker_publisher_confirm_timeout, 1000},
  {quorum_tick_interval, 1000},
  {channel_tick_interval, 1000}
]}].
"""


class ChaosNode(PrivateNode):
    """A `PrivateNode` with settings that `rabbitmq.conf` does not support."""

    @override
    def _make_directory(self) -> None:
        super()._make_directory()
        self._advanced.write_text(ADVANCED, encoding="ascii")

    @override
    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "RABBITMQ_ADVANCED_CONFIG_FILE": str(self._advanced)}

    @override
    async def ctl(self, *arguments: str, timeout: float = PATIENCE) -> str:
        return await super().ctl(*arguments, timeout=timeout)

    @override
    async def _until(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        await super()._until(condition, max(seconds, PATIENCE), what)

    @property
    def _advanced(self) -> Path:
        return self.directory / "advanced.config"
