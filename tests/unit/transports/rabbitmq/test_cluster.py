import logging
from unittest.mock import sentinel

import pytest

from bus.errors import ConfigurationError
from bus.messaging.broker_addresses import parse_urls
from bus.transports.rabbitmq.cluster import Cluster

FIRST, SECOND, THIRD = sentinel.first, sentinel.second, sentinel.third


def test_connections_of_one_process_must_report_the_same_cluster() -> None:
    cluster = Cluster(["a:5672", "b:5672"])
    cluster.join(FIRST, "a:5672", "x")
    cluster.join(SECOND, "b:5672", "x")
    with pytest.raises(
        ConfigurationError,
        match=r"host b:5672 belongs to the cluster 'y', but this process is connected to 'x'\. "
        r"List only nodes of one cluster in BUS_URL\.",
    ):
        cluster.join(THIRD, "b:5672", "y")


def test_an_unrelated_broker_does_not_replace_a_broker_that_is_away() -> None:
    cluster = Cluster(["a:5672", "b:5672"])
    cluster.join(FIRST, "a:5672", "x")
    cluster.leave(FIRST)
    for _ in range(3):
        with pytest.raises(ConfigurationError, match="host b:5672 belongs to the cluster 'y'"):
            cluster.join(FIRST, "b:5672", "y")
    cluster.join(FIRST, "a:5672", "x")


def test_a_single_broker_that_was_set_up_again_is_accepted_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster(["a:5672"])
    cluster.join(FIRST, "a:5672", "x")
    cluster.join(SECOND, "a:5672", "x")
    cluster.leave(FIRST)
    with pytest.raises(ConfigurationError):
        cluster.join(FIRST, "a:5672", "y")  # the second connection is still open
    cluster.leave(SECOND)
    with caplog.at_level(logging.WARNING):
        cluster.join(FIRST, "a:5672", "y")
    assert "belongs to the cluster 'y' now" in caplog.text
    cluster.join(SECOND, "a:5672", "y")


def test_a_list_of_brokers_that_were_all_set_up_again_is_accepted() -> None:
    cluster = Cluster(["a:5672", "b:5672", "c:5672"])
    cluster.join(FIRST, "a:5672", "x")
    cluster.leave(FIRST)
    for host in ("b:5672", "c:5672"):
        with pytest.raises(ConfigurationError):
            cluster.join(FIRST, host, "y")
    cluster.join(FIRST, "a:5672", "y")
    assert cluster.name == "y"


def test_hosts_that_report_different_names_are_never_accepted_for_an_earlier_cluster() -> None:
    cluster = Cluster(["a:5672", "b:5672"])
    cluster.join(FIRST, "a:5672", "x")
    cluster.leave(FIRST)
    for _ in range(2):
        for host, name in (("a:5672", "z"), ("b:5672", "y")):
            with pytest.raises(ConfigurationError):
                cluster.join(FIRST, host, name)


def test_a_broker_without_a_cluster_name_is_accepted_only_as_the_only_host() -> None:
    Cluster(["a:5672"]).join(FIRST, "a:5672", None)
    with pytest.raises(ConfigurationError, match="host a:5672 reports no cluster_name"):
        Cluster(["a:5672", "b:5672"]).join(FIRST, "a:5672", None)


def test_all_connections_of_a_process_to_the_same_hosts_share_their_cluster() -> None:
    one = Cluster.of(parse_urls("amqp://u:p@shared-1,shared-2/v"))
    assert one is Cluster.of(parse_urls("amqp://x:y@shared-2,shared-1"))
    assert one is not Cluster.of(parse_urls("amqp://u:p@shared-1/v"))


def test_a_connection_that_was_never_closed_does_not_count_for_ever() -> None:
    cluster = Cluster(["a:5672"])
    cluster.join(Lost(), "a:5672", "x")
    cluster.join(FIRST, "a:5672", "y")


class Lost:
    """A connection that no code refers to any more."""
