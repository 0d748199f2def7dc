"""The settings of the durable store."""

import subprocess
import sys
from pathlib import Path

import pytest

from bus.errors import ConfigurationError
from bus.settings import load_settings
from bus.storage.configured_store import configured_store


def test_without_a_setting_a_service_has_no_durable_store() -> None:
    assert load_settings().store_address_of("shelf") is None
    assert load_settings(store="memory").store_address_of("shelf") is None


@pytest.mark.parametrize(
    ("text", "path"), [("sqlite:////srv/jobs.db", "/srv/jobs.db"), ("sqlite:///jobs.db", "jobs.db")]
)
def test_sqlite_has_an_absolute_path_after_four_slashes_and_a_relative_one_after_three(
    text: str, path: str
) -> None:
    address = load_settings(store=text).store_address_of("shelf")
    assert address is not None
    assert (address.kind, address.path, address.place) == ("sqlite", path, text)


def test_the_place_of_postgresql_has_every_host_and_no_password() -> None:
    text = "postgres://shop:hunter2@one,two:5433/jobs?sslmode=verify-full"
    settings = load_settings(store=text)
    address = settings.store_address_of("shelf")
    assert address is not None
    assert address.place == "postgresql://one:5432,two:5433/jobs"
    assert address.url == ("postgresql://shop:hunter2@one:5432,two:5433/jobs?sslmode=verify-full")
    assert "hunter2" not in repr(address) + repr(settings)


def test_the_password_of_a_file_replaces_the_one_in_the_url_at_each_read(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("a b@c\n")
    settings = load_settings(store="postgresql://shop:old@one/jobs", store_password_file=file)
    address = settings.store_address_of("shelf")
    assert address is not None
    assert address.url == "postgresql://shop:a%20b%40c@one:5432/jobs"
    file.write_text("next")
    address = settings.store_address_of("shelf")
    assert address is not None
    assert address.url == "postgresql://shop:next@one:5432/jobs"


def test_the_name_of_the_service_is_inserted_into_the_url() -> None:
    found = [
        load_settings(store=text).store_address_of("shelf")
        for text in ("sqlite:////srv/{service}.db", "postgresql://{service}:pw@one/{service}")
    ]
    assert [each and each.place for each in found] == [
        "sqlite:////srv/shelf.db",
        "postgresql://one:5432/shelf",
    ]
    assert found[1] is not None
    assert found[1].url == "postgresql://shelf:pw@one:5432/shelf"


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("mysql://h/d", "begins with mysql://.* Write memory, sqlite:////path/of/file.db or "),
        ("postgresql+asyncpg://h/d", "must not name a driver.* Write postgresql:// without"),
        ("sqlite+aiosqlite:///d", "must not name a driver.* Write sqlite:// without"),
        ("postgresql://h", "no name of a database. Write postgresql://user:password@host:port/"),
        ("sqlite://", "three slashes before a relative path.* Write sqlite:////path/of/file.db"),
        ("sqlite:///", "no file. Write sqlite:////path/of/file.db, or write memory"),
        ("sqlite:///:memory:", "no file. Write sqlite:////path/of/file.db, or write memory"),
        ("sqlite:///a.db?mode=ro", "must have no parameters. Remove the"),
        ("postgresql://h/d?timeout=3", "Allowed are sslmode, "),
        ("postgresql://u@a/d;postgresql://v@b/d", "must have the same user, password and"),
    ],
)
def test_an_address_that_is_not_a_store_is_refused_with_the_right_form(
    text: str, remedy: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^settings: BUS_STORE: .*{remedy}"):
        load_settings(store=text)


@pytest.mark.parametrize(
    ("text", "missing", "extra"),
    [
        ("sqlite:///jobs.db", "aiosqlite", "store"),
        ("postgresql://shelf@one/jobs", "asyncpg", "postgres"),
    ],
)
def test_a_store_without_its_packages_is_refused_with_the_command_that_installs_them(
    text: str, missing: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "bus.storage.configured_store.find_spec", lambda name: None if name == missing else name
    )
    with pytest.raises(ConfigurationError) as caught:
        configured_store(load_settings(auth="off", store=text), "shelf")
    assert str(caught.value).endswith(
        f'needs {missing}, which is not installed. Run `pip install "trunkline[{extra}]"`.'
    )


def test_a_store_in_sqlite_does_not_load_the_driver_of_postgresql() -> None:
    code = (
        "import sys\n"
        "from bus.settings import load_settings\n"
        "from bus.storage.configured_store import configured_store\n"
        "configured_store(load_settings(auth='off', store='sqlite:///x.db'), 'shelf')\n"
        "assert 'aiosqlite' in sys.modules\n"
        "assert not {'asyncpg', 'alembic'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
