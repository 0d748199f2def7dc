import subprocess
import sys

import pytest

import bus

NAMES: list[str] = vars(bus)["__all__"]  # the stub does not declare it
"""Public names, read from `bus/__init__.pyi`, their only list.

test_docs.py checks that the reference page describes each of them.
"""


def test_the_public_names_are_those_of_the_stub() -> None:
    assert dir(bus) == NAMES
    assert {
        "Bus",
        "Context",
        "Envelope",
        "Event",
        "Handler",
        "JobHandle",
        "JobStatus",
        "Middleware",
        "ProcessLost",
        "Progress",
        "Sender",
    } <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(bus, name) is not None


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="'bus' has no attribute 'Buss'"):
        getattr(bus, "Buss")  # noqa: B009 - a type checker would refuse the attribute


# One interpreter runs all checks, because its start takes most of the time.
IMPORTS = """
import sys
from bus import Event, Message
from bus import contract
ours = {name for name in sys.modules if name.partition(".")[0] == "bus"}
inner = {
    "contract",
    "contract_options",
    "criticality",
    "limits",
    "names",
    "payload",
    "reply_type",
    "retry_policy",
    "sensitive",
}
expected = {"bus", "bus.errors", "bus.contracts", *(f"bus.contracts.{name}" for name in inner)}
assert ours == expected, f"importing a kind loads {ours}"
foreign = {"aio_pika", "aiormq", "asyncio", "msgspec", "pydantic_settings"}
foreign |= {"rich", "structlog", "tenacity", "typer", "yarl"}
assert not foreign & set(sys.modules), f"importing a kind loads {foreign & set(sys.modules)}"
import bus.contracts.contract
assert contract is bus.contract and callable(contract), "a module replaced the decorator"
from bus import Bus
assert "aio_pika" in sys.modules
assert "structlog" not in sys.modules, "a library must not load an application's logging"
from bus import Router
@contract("names.told", version=1)
class Told(Event): ...
router = Router("names")
@router.event(Told)
async def told(event: Told) -> None: ...
functions = [endpoint.function for endpoint in router.endpoints.values()]
assert functions == [told], "a handler without dependencies must be called directly"
bus.Bus("names", settings=bus.Settings(auth="off"))
unused = {"fast_depends", "faststream", "prometheus_client", "opentelemetry.trace"}
unused |= {"aiosqlite", "alembic", "asyncpg", "sqlalchemy", "bus.storage.sqlalchemy"}
assert not unused & set(sys.modules), f"{unused & set(sys.modules)} was loaded"
"""


def test_imports_load_what_is_used_and_contract_stays_the_decorator() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
