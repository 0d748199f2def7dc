"""A private node whose slowest clocks are quick, and which a campaign may kill."""

from pathlib import Path

from typing_extensions import override

from bus.brokers.private_node import PrivateNode

__all__ = ["ChaosNode"]

CTL = 120.0
"""Seconds for one rabbitmqctl: it starts an Erlang of its own, a second's work, on a machine that is busy with others."""
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
    async def ctl(self, *arguments: str, timeout: float = CTL) -> str:
        return await super().ctl(*arguments, timeout=timeout)

    @property
    def _advanced(self) -> Path:
        return self.directory / "advanced.config"
