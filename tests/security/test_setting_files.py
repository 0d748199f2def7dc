"""Files that the settings name, and that are not what they should be."""

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bus.errors import ConfigurationError
from bus.runtime.bus import Bus
from bus.runtime.operator_rights import authorized_revealer
from bus.runtime.security import security_from_settings
from bus.security.jwe import new_encryption_key
from bus.security.jwks_source import MAX_KEY_SET_BYTES
from bus.settings import load_settings
from tests.integration.certificates import certificates
from tests.security.deployment import GRANTS, Deployment

TRUSTED = ["jwks", "grants", "ca_file", "client_certificate", "client_key", "password_file"]
"""Settings of files that other users may read, but must not write."""
SECRET = ["key", "encryption_keys", "operator_key"]
"""Settings of files that only their owner may access."""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Return a valid file for each setting."""
    deployment = Deployment(tmp_path)
    deployment.keys.add_encryption_key(new_encryption_key("ring-1"))
    deployment.grants.write_text(f'{GRANTS}[operators.ida]\nmay = ["dead-letters.reveal"]\n')
    made = certificates(tmp_path / "made", "localhost")
    password = tmp_path / "password"
    password.write_text("hunter2")
    return {
        "key": deployment.keys.key_file("office"),
        "operator_key": deployment.keys.key_file("ida"),
        "jwks": deployment.keys.set_file,
        "grants": deployment.grants,
        "encryption_keys": deployment.keys.encryption_keys_file,
        "password_file": password,
        "ca_file": made.authority,
        "client_certificate": made.certificate,
        "client_key": made.key,
    }


def start(files: dict[str, Path]) -> None:
    """Read all files as a service and as an operator's command read them."""
    settings = load_settings(
        auth="on",
        url="amqps://localhost/",
        **{name: str(path) for name, path in files.items()},
    )
    Bus("office", settings=settings)
    identity = security_from_settings("office", settings).identity

    async def run() -> None:
        await identity.start()
        await identity.close()
        await authorized_revealer(settings)

    asyncio.run(run())


def pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def directory(path: Path) -> None:
    path.mkdir(0o700)


def device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def test_files_that_are_mounted_as_links_with_mode_644_are_read(
    files: dict[str, Path], tmp_path: Path
) -> None:
    links = {name: tmp_path / f"link-{name}" for name in files}
    for name, file in files.items():
        if name not in SECRET:
            file.chmod(0o644)
        links[name].symlink_to(file)
    start(links)


@pytest.mark.parametrize("replace", [pipe, directory, device])
@pytest.mark.parametrize("name", [*TRUSTED, *SECRET])
@pytest.mark.timeout(10)
def test_a_pipe_a_directory_and_a_device_are_refused_at_once_by_the_name_of_the_setting(
    files: dict[str, Path], tmp_path: Path, name: str, replace: Callable[[Path], None]
) -> None:
    files[name] = tmp_path / "not-a-file"
    replace(files[name])
    if (name, replace) == ("key", directory):
        pipe(files[name] / "office.key")  # A directory of keys is a valid value of BUS_KEY.
    variable = "BUS_CLIENT_KEY" if name == "client_certificate" else f"BUS_{name.upper()}"
    with pytest.raises(ConfigurationError, match=f"{variable}: .*") as refused:
        start(files)
    assert any(
        each in str(refused.value)
        for each in ("is not a regular file", "Is a directory", "cannot be used")
    )


@pytest.mark.parametrize("mode", [0o666, 0o777, 0o602, 0o646])
@pytest.mark.parametrize("name", TRUSTED)
def test_a_file_that_decides_whom_a_service_trusts_must_not_be_world_writable(
    files: dict[str, Path], name: str, mode: int
) -> None:
    files[name].chmod(mode)
    with pytest.raises(ConfigurationError) as refused:
        start(files)
    variable = "BUS_CLIENT_KEY" if name == "client_certificate" else f"BUS_{name.upper()}"
    assert f"{variable}: " in str(refused.value)
    if name in {"jwks", "grants"}:
        assert str(refused.value) == (
            f"{variable}: {files[name]} has mode {mode:o}. "
            f"Other users must not write to it: run `chmod o-w {files[name]}`."
        )
    else:
        assert "world-writable" in str(refused.value)


@pytest.mark.parametrize("mode", [0o640, 0o644, 0o664, 0o444])
@pytest.mark.parametrize("name", ["jwks", "grants"])
def test_a_key_set_and_grants_that_others_may_only_read_are_accepted(
    files: dict[str, Path], name: str, mode: int
) -> None:
    files[name].chmod(mode)
    start(files)


def test_a_key_set_file_that_is_too_large_is_refused(files: dict[str, Path]) -> None:
    files["jwks"].write_text(json.dumps({"keys": []}) + " " * MAX_KEY_SET_BYTES)
    with pytest.raises(ConfigurationError, match=r"BUS_JWKS: .* is larger than 1048576 bytes"):
        start(files)
