"""Keys and grants that Kubernetes mounts, and replaces while services run."""

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from bus.errors import PermissionDenied, Unauthenticated
from bus.testing import wall_clock
from tests.security.deployment import GRANTS, Deployment
from tests.security.test_buses import on_virtual_time, running
from tests.unit.ledger import Add

MINUTE = 60
ROOT, SERVICE = 0, 10001


class Volume:
    """A directory in the form in which the kubelet writes a Secret or a ConfigMap.

    Each file is a link into `..data`, which is a link to a directory with the content. The kubelet
    writes a new directory, and replaces the link `..data` by a rename.
    """

    def __init__(self, directory: Path, mode: int) -> None:
        self.directory = directory
        self._mode = mode
        self._versions = 0
        directory.mkdir()

    def write(self, files: dict[str, str]) -> None:
        """Replace the content, as `kubectl apply` of a Secret or ConfigMap does."""
        self._versions += 1
        content = self.directory / f"..2026_11_30_08_00_00.{self._versions}"
        content.mkdir()
        for name, text in files.items():
            (content / name).write_text(text)
            (content / name).chmod(self._mode)
            if not (self.directory / name).is_symlink():
                (self.directory / name).symlink_to(f"..data/{name}")
        link = self.directory / "..data_tmp"
        link.symlink_to(content.name)
        link.replace(self.directory / "..data")


class Mounted(Deployment):
    """A deployment in which every service reads its key, the key set and the grants from mounts."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.public = Volume(directory / "public", 0o644)
        self.publish(GRANTS)
        self.secrets = Volume(directory / "secrets", 0o440)
        self.mount_keys()

    def mount_keys(self) -> None:
        files = [self.keys.key_file(name) for name in ("ledger", "office")]
        self.secrets.write({file.name: file.read_text() for file in files})

    def publish(self, grants: str) -> None:
        self.public.write({"jwks.json": self.keys.set_file.read_text(), "grants.toml": grants})

    @override
    def of(self, service: str, **others: Any) -> dict[str, Any]:
        files = {
            "key": str(self.secrets.directory / f"{service}.key"),
            "jwks": str(self.public.directory / "jwks.json"),
            "grants": self.public.directory / "grants.toml",
        }
        return super().of(service, **{**files, **others})


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mounted:
    """Mount the files with root as their owner, for a process that is not root."""
    fstat = os.fstat

    def of_root(descriptor: int) -> os.stat_result:
        fields = list(fstat(descriptor))
        fields[stat.ST_UID] = ROOT
        return os.stat_result(fields)

    monkeypatch.setattr(os, "fstat", of_root)
    monkeypatch.setattr(os, "geteuid", lambda: SERVICE)
    return Mounted(tmp_path)


async def is_refused_within_a_minute(
    call: Callable[[], Awaitable[object]], error: type[Exception]
) -> bool:
    for _ in range(MINUTE + 1):
        try:
            await call()
        except error:
            return True
        await asyncio.sleep(1)
    return False


def test_services_start_with_keys_and_grants_that_kubernetes_mounts(mounted: Mounted) -> None:
    async def scene() -> None:
        async with running(mounted) as (buses, _, _):
            office = await buses.bus("office", **mounted.of("office"))
            assert (await office.request(Add())).total == 2

    on_virtual_time(scene())


def test_a_right_that_a_new_configmap_takes_away_ends_within_a_minute(mounted: Mounted) -> None:
    async def scene() -> None:
        async with running(mounted) as (buses, _, _):
            office = await buses.bus("office", **mounted.of("office"))
            await office.request(Add())
            mounted.publish(GRANTS.replace('"ledger.add", ', ""))
            assert await is_refused_within_a_minute(lambda: office.request(Add()), PermissionDenied)

    on_virtual_time(scene())


def test_a_key_that_a_new_configmap_revokes_ends_within_a_minute(
    mounted: Mounted, tmp_path: Path
) -> None:
    async def scene() -> None:
        async with running(mounted) as (buses, _, _):
            # The caller still has the old key set, so it still signs.
            old = tmp_path / "old.json"
            old.write_text(mounted.keys.set_file.read_text())
            office = await buses.bus("office", **mounted.of("office", jwks=str(old)))
            await office.request(Add())
            mounted.keys.update("office-1", compromised_since=0)
            mounted.publish(GRANTS)
            assert await is_refused_within_a_minute(lambda: office.request(Add()), Unauthenticated)

    on_virtual_time(scene())


def test_a_service_signs_with_the_key_of_a_new_secret_and_needs_no_restart(
    mounted: Mounted,
) -> None:
    async def scene() -> None:
        async with running(mounted) as (buses, _, _):
            office = await buses.bus("office", **mounted.of("office"))
            await office.request(Add())
            now = int(wall_clock())
            mounted.keys.rotate("office", "office-2", begins=now + 120, retires=now + 180)
            mounted.publish(GRANTS)
            mounted.mount_keys()
            await asyncio.sleep(5 * MINUTE)
            mounted.keys.update("office-1", compromised_since=0)
            mounted.publish(GRANTS)
            await asyncio.sleep(2 * MINUTE)
            assert (await office.request(Add())).total == 2

    on_virtual_time(scene())
