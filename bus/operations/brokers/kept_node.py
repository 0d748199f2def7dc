"""A private RabbitMQ node that keeps its data, ports and password between two runs."""

import signal
from dataclasses import replace
from pathlib import Path

from typing_extensions import override

from bus.errors import Unavailable
from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.installation import Installation, versions
from bus.operations.brokers.kept_directory import KeptDirectory
from bus.operations.brokers.private_node import PrivateNode

__all__ = ["KeptNode"]


class KeptNode(PrivateNode):
    """A `PrivateNode` with a directory that it locks, and that stays after a stop.

    The ports and the password of the first run are used again, unless the options change them.
    When this process ends, the node stops gracefully, even if this process is killed.
    """

    def __init__(self, installation: Installation, keep: Path, options: BrokerOptions) -> None:
        """Lock the directory, and read the node's name, ports and password from it.

        Args:
            installation: The programs to run.
            keep: The directory. If it does not exist, it is created.
            options: The ports and the password. They replace those of the last run.

        Raises:
            ConfigurationError: The directory is not suitable.
            Unavailable: Another node uses the directory, or this machine has too few free ports.
        """
        self._kept = KeptDirectory(keep)
        state = self._kept.state.updated(options)
        try:
            super().__init__(
                installation,
                options=BrokerOptions(
                    port=state.port, management_port=state.management_port, password=state.password
                ),
            )
        except BaseException:
            self._kept.unlock()
            raise
        self._name = state.name
        self._state = replace(state, port=self.port, management_port=self.management_port)

    @property
    def keeps_data(self) -> bool:
        """True if the directory still exists, so that the next start finds the data."""
        return self._kept.exists

    @override
    def describe(self) -> str:
        return f"{super().describe()}, with its data in {self._kept.path}"

    @override
    async def start(self) -> None:
        """Start the node with the data of the last run.

        Raises:
            ConfigurationError: A newer RabbitMQ has written the data.
            Unavailable: The node did not start, or another node uses the directory.
        """
        if self.running:
            return
        self._locks = (self._kept.lock(),)
        installed = versions(self._installation)["rabbitmq"]
        self._kept.check_version(installed)
        try:
            await super().start()
        except Unavailable as error:
            raise Unavailable(f"{self._kept.describe_upgrade(installed)}{error}") from error
        if self._kept.is_upgraded(installed):
            # RabbitMQ refuses the next upgrade if the features of this one are not enabled.
            await self.ctl("enable_feature_flag", "all")
        self._kept.save(replace(self._state, rabbitmq=installed))

    @override
    async def stop(self) -> None:
        """Stop the node gracefully, which takes about 6 s. Its directory stays."""
        await self._stop_processes(signal.SIGTERM)
        self._directory, self._locks = None, ()
        self._kept.unlock()

    @override
    def _make_directory(self) -> None:
        try:
            # Before the start: after a crash of this process, the data must have its name and
            # password.
            self._kept.save(replace(self._state, rabbitmq=self._kept.state.rabbitmq))
            self._directory = self._kept.prepare_run()
            self._write_files(self._directory)
        except OSError as error:
            raise self._kept.unsuitable(error) from error

    @override
    def _environment(self) -> dict[str, str]:
        return {**super()._environment(), "RABBITMQ_MNESIA_BASE": str(self._kept.data)}
