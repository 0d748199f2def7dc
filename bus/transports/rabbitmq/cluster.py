"""The cluster to which the connections of a process belong.

`BUS_URL` can list several hosts. If two of them are nodes of unrelated brokers, a service would
publish at one broker and consume at the other. Each broker reports its `cluster_name` when a
connection is opened, so the connections of a process can be compared.
"""

import logging
import os
from collections.abc import Sequence
from typing import ClassVar
from weakref import WeakSet

from bus.errors import ConfigurationError
from bus.messaging.broker_addresses import BrokerUrl

__all__ = ["Cluster"]

log = logging.getLogger("bus.rabbitmq")


class Cluster:
    """The cluster that all open connections to the same hosts must report."""

    _by_hosts: ClassVar[dict[tuple[object, ...], "Cluster"]] = {}

    def __init__(self, hosts: Sequence[str]) -> None:
        """Create a cluster without a name. The first connection sets the name.

        Args:
            hosts: `host:port` of each host in the setting.
        """
        self.name: str | None = None
        """The `cluster_name` of the last accepted connection."""
        self._hosts = frozenset(hosts)
        self._members: WeakSet[object] = WeakSet()
        self._other_names: dict[str, str] = {}
        """The other name that each host has reported since the last accepted connection."""

    @classmethod
    def of(cls, urls: Sequence[BrokerUrl]) -> "Cluster":
        """Return the cluster of these hosts. All connections of this process share it."""
        # A forked process does not have the connections of its parent.
        hosts = sorted({url.place for url in urls})
        return cls._by_hosts.setdefault((os.getpid(), *hosts), cls(hosts))

    def join(self, connection: object, host: str, name: object) -> None:
        """Accept an open connection, or refuse it because its broker is in another cluster.

        Another name is accepted only if no accepted connection is open, and each host has reported
        this name in the meantime. So a broker that was set up again is accepted, but a second
        broker never replaces a broker that does not answer.

        Args:
            connection: The connection. Call `leave` when it is lost.
            host: `host:port` of the broker.
            name: The `cluster_name` that the broker reports, or None.

        Raises:
            ConfigurationError: The broker belongs to another cluster. Or the setting lists several
                hosts, and this one reports no name.
        """
        if not isinstance(name, str) or not name:
            if len(self._hosts) > 1:
                raise ConfigurationError(
                    f"host {host} reports no cluster_name, so it cannot be compared with the other "
                    "hosts in BUS_URL. List only one host for this broker."
                )
        elif name != self.name:
            self._change_name(host, name)
        self._other_names.clear()
        self._members.add(connection)

    def leave(self, connection: object) -> None:
        """Forget a connection that was closed or lost."""
        self._members.discard(connection)

    def _change_name(self, host: str, name: str) -> None:
        """Set the name, if it is the first one or each host reports it.

        Raises:
            ConfigurationError: The connections belong to another cluster.
        """
        if self.name is not None:
            self._other_names[host] = name
            reported = {self._other_names.get(each) for each in self._hosts}
            if self._members or reported != {name}:
                raise ConfigurationError(
                    f"host {host} belongs to the cluster {name!r}, but this process is connected "
                    f"to {self.name!r}. List only nodes of one cluster in BUS_URL. If the cluster "
                    "was renamed, restart this process."
                )
            log.warning(
                "host %s belongs to the cluster %r now, and no host to %r any more; using it",
                host,
                name,
                self.name,
                extra={"broker": host, "cluster": name, "former_cluster": self.name},
            )
        self.name = name
