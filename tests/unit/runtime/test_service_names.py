"""The check of the names of configured services against the services that a process knows."""

import logging
import os
from pathlib import Path

import pytest

from bus import Bus, ServiceConfig
from bus.contracts.contract import Catalog, Message, Request, contract
from bus.errors import ConfigurationError
from bus.runtime.service_names import check_service_names, known_services, unused_services
from bus.security.grants import AllowAll, Grants, ServiceGrants
from bus.settings import load_settings
from bus.settings.service_registry import ServiceRegistry
from bus.testing import MemoryBuses
from bus.transports.memory import MemoryBroker, MemoryTransport
from tests.unit.runtime.in_memory import in_memory

CATALOG = Catalog()
KNOWN = ["desk", "transcription", "billing-eu"]


class Reply(Message): ...


@contract("transcription.get", version=1, catalog=CATALOG)
class Get(Request[Reply]): ...


@contract("narrations.get", version=1)
class Narrate(Request[Reply]):
    """A request of the shared catalog, which the buses of this file know."""


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("BUS_")]:
        monkeypatch.delenv(name)


def registry(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    *,
    variables: tuple[str, ...] = (),
    file: str = "",
    code: tuple[str, ...] = (),
) -> ServiceRegistry:
    for variable in variables:
        monkeypatch.setenv(variable, "3")
    (folder / "services.toml").write_text(file)
    return load_settings(
        services_file=folder / "services.toml", services=[ServiceConfig(name) for name in code]
    ).registry


def test_a_process_knows_itself_its_contracts_and_the_services_in_its_grants() -> None:
    grants = Grants(
        {
            "reader": ServiceGrants(call=frozenset({"library.find", "read:notes"})),
            "office": ServiceGrants(
                publish=frozenset({"office.moved"}), consume=frozenset({"archive.filed"})
            ),
        }
    )
    own = {"desk", "transcription"}
    assert known_services("desk", None, CATALOG) == own
    assert known_services("desk", AllowAll(), CATALOG) == own
    assert known_services("desk", grants, CATALOG) == own | {
        *("reader", "library", "office", "archive")
    }


@pytest.mark.parametrize(
    ("variables", "file", "code", "text"),
    [
        (
            ("BUS_SERVICES__TRANSCRIPTON__TIMEOUT",),
            "",
            (),
            (
                "BUS_SERVICES__TRANSCRIPTON__TIMEOUT: the service 'transcripton' is not known "
                "here; did you mean 'transcription'? Correct the name. If both services exist, "
                "configure both in the same place."
            ),
        ),
        (
            (),
            "[services.transcripton]\ntimeout = 3",
            (),
            (
                "[services.transcripton] in {file}: the service 'transcripton' is not known "
                "here; did you mean 'transcription'? Correct the name. If both services exist, "
                "configure both in the same place."
            ),
        ),
        (
            (),
            "",
            ("transcripton",),
            (
                "ServiceConfig('transcripton'): the service 'transcripton' is not known here; did "
                "you mean 'transcription'? Correct the name. If both services exist, configure "
                "both in the same place."
            ),
        ),
        (
            ("BUS_SERVICES__PAYMNETS__RETRIES",),
            "[services.payments]\nretries = 1",
            (),
            (
                "BUS_SERVICES__PAYMNETS__RETRIES: the service 'paymnets' is not known here; did "
                "you mean 'payments'? Correct the name. If both services exist, configure both in "
                "the same place."
            ),
        ),
    ],
    ids=["variable", "file", "code", "variable and file"],
)
def test_a_misspelled_service_is_refused_with_the_nearest_name(
    variables: tuple[str, ...],
    file: str,
    code: tuple[str, ...],
    text: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    found = registry(monkeypatch, tmp_path, variables=variables, file=file, code=code)
    with pytest.raises(ConfigurationError) as caught:
        check_service_names(found, KNOWN)
    expected = text.replace("{file}", str(tmp_path / "services.toml"))
    assert str(caught.value) == f"settings: {expected}"


@pytest.mark.parametrize(
    ("variables", "file"),
    [
        (("BUS_SERVICES__TRANSCRIPTION__TIMEOUT",), ""),
        # Services that share their variables call different services.
        (("BUS_SERVICES__WAREHOUSE__TIMEOUT",), "[services.payments]"),
        # Both names are in one place, so they are two services.
        (("BUS_SERVICES__BILLING_US__TIMEOUT", "BUS_SERVICES__BILLING_EU__TIMEOUT"), ""),
        ((), "[services.billing-us]\ntimeout = 3\n[services.billing-eu]\n"),
        (("BUS_SERVICES__PAYMENTS__TIMEOUT",), "[services.payments]\nretries = 3"),
    ],
)
def test_a_name_that_is_similar_to_no_known_service_is_valid(
    variables: tuple[str, ...], file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    check_service_names(registry(monkeypatch, tmp_path, variables=variables, file=file), KNOWN)


def test_services_without_an_effect_are_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    variables = ("BUS_SERVICES__WAREHOUSE__TIMEOUT", "BUS_SERVICES__TRANSCRIPTION__TIMEOUT")
    found = registry(monkeypatch, tmp_path, variables=variables)
    assert unused_services(found, KNOWN) == ["warehouse"]


@in_memory
async def test_a_bus_with_a_misspelled_service_does_not_start(buses: MemoryBuses) -> None:
    with pytest.raises(ConfigurationError, match="did you mean 'narrations'"):
        await buses.bus("caller", services=[ServiceConfig("naratins", timeout=3)])


async def test_a_bus_logs_the_services_that_it_does_not_know(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "bus.client")
    services = [ServiceConfig("narrations"), ServiceConfig("warehouse"), ServiceConfig("payments")]
    settings = load_settings(services=services, auth="off")
    async with Bus("caller", settings=settings, transport=MemoryTransport(MemoryBroker())):
        pass
    (line,) = [record.getMessage() for record in caplog.records if record.name == "bus.client"]
    assert line == (
        "the configuration of payments, warehouse has no effect in this process, which knows no "
        "contract of it"
    )


def test_a_service_with_the_name_defaults_gets_the_place_of_the_values_of_all_services(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    configured = registry(
        monkeypatch,
        tmp_path,
        variables=("BUS_SERVICES__DEFAULTS__RETRIES",),
        file="[services.defaults]\nretries = 3\n",
        code=("defaults",),
    )
    with pytest.raises(ConfigurationError) as caught:
        check_service_names(configured, KNOWN)
    unknown = "the service 'defaults' is not known here. Write the values of all services in"
    path = tmp_path / "services.toml"
    assert str(caught.value) == (
        f"settings: [services.defaults] in {path}: {unknown} the table [defaults]; "
        f"BUS_SERVICES__DEFAULTS__RETRIES: {unknown} BUS_SERVICE_DEFAULTS__<KEY>; "
        f"ServiceConfig('defaults'): {unknown} service_defaults=ServiceDefaults(…)."
    )
    check_service_names(configured, [*KNOWN, "defaults"])
