"""A private node whose slowest clocks are quick, and which a campaign may kill."""

from collections.abc import Callable
from pathlib import Path

from typing_extensions import override

from bus.operations.brokers.private_node import PrivateNode

__all__ = ["ChaosNode"]

PATIENCE = 180.0
"""Seconds for a start or one rabbitmqctl, on a machine that is busy with others: both start an Erlang, which is seconds of work."""
# RabbitMQ's dead-letter worker offers again what its target refused only after three minutes.
ADVANCED = """\
[{rabbit, [
  {dead_letter_worker_publisher_confirm_timeout, 1000},
  {quorum_tick_interval, 1000},
  {channel_tick_interval, 1000}
]}].
"""


class ChaosNode(PrivateNode):
    """As `PrivateNode`, with settings that rabbitmq.conf has no line for."""

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
