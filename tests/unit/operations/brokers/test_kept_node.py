import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from bus.errors import ConfigurationError, Unavailable
from bus.operations.brokers.broker_options import BrokerOptions
from bus.operations.brokers.installation import Installation
from bus.operations.brokers.kept_node import KeptNode
from bus.operations.brokers.private_node import PrivateNode


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Return an installation of RabbitMQ 4.0.5 that has no programs."""
    home = tmp_path / "rabbitmq"
    (home / "plugins" / "rabbit-4.0.5").mkdir(parents=True)
    programs = home / "sbin"
    return Installation(
        server=programs / "rabbitmq-server",
        ctl=programs / "rabbitmqctl",
        epmd=programs / "epmd",
        search_path=str(programs),
    )


@pytest.fixture
def written(tmp_path: Path, installation: Installation) -> Path:
    """Return a directory with data of RabbitMQ 3.10.8."""
    node = KeptNode(installation, tmp_path / "kept", BrokerOptions(port=20001))
    node._kept.save(replace(node._state, rabbitmq="3.10.8"))
    node._kept.unlock()
    return node._kept.path


def test_a_node_without_free_ports_releases_the_directory(
    installation: Installation, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bus.operations.brokers.ports.bindable", lambda _: False)
    for _ in range(2):
        with pytest.raises(Unavailable, match="0 free ports"):
            KeptNode(installation, written, BrokerOptions())
    monkeypatch.undo()
    KeptNode(installation, written, BrokerOptions())


async def test_a_failed_upgrade_is_an_error_with_both_versions(
    installation: Installation, written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def start(_: PrivateNode) -> None:
        raise Unavailable("the private RabbitMQ node ended during its start.")

    monkeypatch.setattr(PrivateNode, "start", start)
    node = KeptNode(installation, written, BrokerOptions())
    with pytest.raises(Unavailable, match=r"RabbitMQ 3\.10\.8, and RabbitMQ 4\.0\.5 did") as caught:
        await node.start()
    assert "ended during its start" in str(caught.value)
    assert node._kept.state.rabbitmq == "3.10.8"


async def test_data_of_a_newer_rabbitmq_is_refused_before_a_start(
    installation: Installation, written: Path
) -> None:
    node = KeptNode(installation, written, BrokerOptions())
    node._kept.save(replace(node._kept.state, rabbitmq="4.1.0"))
    with pytest.raises(ConfigurationError, match=r"written by RabbitMQ 4\.1\.0, which is newer"):
        await node.start()
    assert not node.running


async def test_a_stop_releases_the_directory_and_leaves_it(
    installation: Installation, written: Path
) -> None:
    node = KeptNode(installation, written, BrokerOptions())
    with pytest.raises(Unavailable, match="in use"):
        KeptNode(installation, written, BrokerOptions())
    await node.stop()
    await node.stop()
    assert KeptNode(installation, written, BrokerOptions()).port == 20001


def test_a_description_has_the_directory_and_not_the_password(
    installation: Installation, written: Path
) -> None:
    described = KeptNode(installation, written, BrokerOptions(password="secret")).describe()
    assert str(written) in described
    assert "secret" not in described


def test_a_node_reads_nothing_but_its_data_from_an_earlier_run(
    installation: Installation, written: Path
) -> None:
    node = KeptNode(installation, written, BrokerOptions())
    old = node._kept.prepare_run()
    for planted in ("conf.d/x.conf", ".erlang", "advanced.config"):
        (old / planted).parent.mkdir(exist_ok=True)
        (old / planted).write_text("planted")
    (written / "conf.d").mkdir()
    node._make_directory()
    assert {path.name for path in node.directory.iterdir()} == {
        *(".erlang.cookie", "advanced.config", "empty.conf", "plugins", "rabbitmq.conf")
    }
    assert "planted" not in (node.directory / "advanced.config").read_text()
    environment = node._environment()
    used = {name for name, value in environment.items() if str(written) in value}
    outside = {name for name in used if not environment[name].startswith(str(node.directory))}
    assert outside == {"RABBITMQ_MNESIA_BASE"}


async def test_a_directory_that_cannot_be_written_is_refused_at_the_start(
    installation: Installation, written: Path
) -> None:
    node = KeptNode(installation, written, BrokerOptions())
    shutil.rmtree(written)
    with pytest.raises(ConfigurationError, match="cannot keep a broker's data"):
        await node.start()
