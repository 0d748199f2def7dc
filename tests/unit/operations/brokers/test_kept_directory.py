import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bus.errors import ConfigurationError, Unavailable
from bus.operations.brokers.kept_directory import KeptDirectory
from bus.operations.brokers.node_state import NodeState

STATE = NodeState(
    name="bus-0123abcd@localhost", password="secret", port=20001, management_port=20002
)


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """Return a directory that a broker has used before."""
    kept = KeptDirectory(tmp_path / "kept")
    kept.save(replace(STATE, rabbitmq="3.10.8"))
    kept.unlock()
    return kept.path


def test_a_new_directory_is_for_its_owner_only_and_remembers_the_node(tmp_path: Path) -> None:
    first = KeptDirectory(tmp_path / "kept")
    assert stat.S_IMODE(first.path.stat().st_mode) == 0o700
    first.save(STATE)
    first.unlock()
    assert KeptDirectory(first.path).state == STATE
    assert stat.S_IMODE((first.path / "broker.json").stat().st_mode) == 0o600


def test_an_empty_directory_is_closed_to_other_users(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert stat.S_IMODE(KeptDirectory(tmp_path).path.stat().st_mode) == 0o700


def test_a_directory_is_used_by_one_broker_at_a_time(used: Path) -> None:
    first = KeptDirectory(used)
    with pytest.raises(Unavailable, match="in use by another broker"):
        KeptDirectory(used)
    first.unlock()
    KeptDirectory(used)


def test_a_node_that_still_stops_holds_the_lock_of_a_killed_owner(used: Path) -> None:
    first = KeptDirectory(used)
    node = subprocess.Popen(
        [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[first.lock()]
    )
    first.unlock()
    with pytest.raises(Unavailable, match="still stops"):
        KeptDirectory(used)
    node.communicate(b"\n")
    KeptDirectory(used)


def add_file(path: Path) -> None:
    (path / "broker.json").rename(path / "holiday.jpg")


def open_to_others(path: Path) -> None:
    path.chmod(0o750)


def damage(path: Path) -> None:
    (path / "broker.json").write_text('{"name": "bus-0123abcd@localhost"}')


def be_binary(path: Path) -> None:
    (path / "broker.json").write_bytes(b"\xff")


def be_a_pipe(path: Path) -> None:
    (path / "broker.json").unlink()
    os.mkfifo(path / "broker.json")


def be_a_copy(path: Path) -> None:
    path.rename(path.with_name("away"))
    shutil.copytree(path.with_name("away"), path)


def come_with_a_repository(path: Path) -> None:
    (path / "inode").unlink()


def have_a_link(path: Path) -> None:
    (path / ".gitignore").symlink_to(path.with_name("precious"))


def write_other_bytes(path: Path) -> None:
    (path / "broker.json").write_bytes(b"\xff\xfe{")


def nest_deeply(path: Path) -> None:
    (path / "broker.json").write_text("[" * 100_000)


def be_a_file(path: Path) -> None:
    path.rename(path.with_name("away"))
    path.touch()


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (add_file, "has other files than a broker's data. Name a new or empty directory"),
        (open_to_others, "has mode 750, .* Run `chmod 700"),
        (damage, "broker.json is not valid"),
        (write_other_bytes, "broker.json is not valid"),
        (nest_deeply, "broker.json is not valid"),
        (be_binary, "broker.json is not valid"),
        (be_a_pipe, "broker.json is not valid"),
        (be_a_copy, "is a copy, .* Name a new directory. If you copied it yourself, run `ls -di"),
        (come_with_a_repository, "another user can have written its data"),
        (have_a_link, r"\.gitignore is a link, which `bus broker` did not create"),
        (be_a_file, "is not a directory"),
    ],
)
def test_a_directory_that_is_not_suitable_is_refused_by_name(
    used: Path, spoil: Callable[[Path], None], problem: str
) -> None:
    spoil(used)
    with pytest.raises(ConfigurationError, match=problem) as caught:
        KeptDirectory(used)
    assert str(used) in str(caught.value)


def test_a_refused_directory_stays_as_it_was(used: Path) -> None:
    come_with_a_repository(used)
    (used / "lock").unlink()
    before = sorted(used.iterdir())
    with pytest.raises(ConfigurationError, match="is a copy"):
        KeptDirectory(used)
    assert sorted(used.iterdir()) == before


def test_the_advice_for_a_copy_makes_it_usable(used: Path) -> None:
    be_a_copy(used)
    with pytest.raises(ConfigurationError) as caught:
        KeptDirectory(used)
    advice = str(caught.value).rpartition("run `")[2].removesuffix("`.")
    subprocess.run(advice, shell=True, check=True)
    assert KeptDirectory(used).state.name == STATE.name


def test_a_missing_parent_is_refused_and_not_created(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="deep does not exist"):
        KeptDirectory(tmp_path / "deep" / "kept")
    assert not (tmp_path / "deep").exists()


def test_a_directory_that_is_gone_is_an_error_of_its_path(used: Path) -> None:
    kept = KeptDirectory(used)
    used.rename(used.with_name("away"))
    assert not kept.exists
    with pytest.raises(ConfigurationError, match="cannot keep a broker's data: No such file"):
        kept.save(STATE)


def test_a_directory_of_another_user_is_refused(
    used: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        KeptDirectory(used)


@pytest.mark.parametrize("name", ["\0", "x" * 300])
def test_a_path_that_cannot_be_made_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot keep a broker's data"):
        KeptDirectory(tmp_path / name)


def test_data_of_a_newer_rabbitmq_is_refused(used: Path) -> None:
    kept = KeptDirectory(used)
    for installed in ("3.10.8", "3.10.1", "3.13.0", "4.0.5", "unknown"):
        kept.check_version(installed)
    for installed in ("3.9.27", "2.10.8"):
        with pytest.raises(ConfigurationError, match=r"RabbitMQ 3\.10\.8, which is newer than"):
            kept.check_version(installed)


def test_a_failed_upgrade_names_both_versions(used: Path) -> None:
    kept = KeptDirectory(used)
    assert kept.describe_upgrade("3.10.8") == ""
    assert "RabbitMQ 3.10.8, and RabbitMQ 4.0.5 did not start" in kept.describe_upgrade("4.0.5")


def test_the_data_of_an_interrupted_first_start_is_removed(tmp_path: Path, used: Path) -> None:
    for path, stays in ((tmp_path / "new", False), (used, True)):
        kept = KeptDirectory(path)
        kept.save(replace(kept.state, port=20001, management_port=20002))
        (path / "data").mkdir()
        kept.prepare_run()
        assert kept.data.exists() is stays


def test_each_run_has_a_new_directory_and_the_files_of_the_last_one_stay(used: Path) -> None:
    for number in range(3):
        kept = KeptDirectory(used)
        run = kept.prepare_run()
        assert list(run.iterdir()) == []
        assert stat.S_IMODE(run.stat().st_mode) == 0o700
        (run / "rabbit.log").write_text(f"run {number}")
        kept.unlock()
    assert (used / "last-run" / "rabbit.log").read_text() == "run 1"


def test_a_file_is_replaced_and_never_written_through_a_link(used: Path) -> None:
    kept, precious = KeptDirectory(used), used.with_name("precious")
    precious.write_text("precious")
    for name in ("new", "broker.json", ".gitignore"):
        (used / name).unlink(missing_ok=True)
        (used / name).hardlink_to(precious)
    kept.save(STATE)
    kept.prepare_run()
    assert precious.read_text() == "precious"


def test_git_ignores_a_directory_that_lies_in_a_checkout(used: Path) -> None:
    subprocess.run(["git", "init", "-q", used.parent], check=True)
    KeptDirectory(used).prepare_run()
    status = ["git", "-C", str(used.parent), "status", "--porcelain"]
    assert subprocess.run(status, check=True, capture_output=True).stdout == b""
