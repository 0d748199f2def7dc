import subprocess
import sys

import pytest

import bus

NAMES = [
    "Aborted",
    "AlreadyExists",
    "Bus",
    "BusError",
    "CLIENT",
    "Cancelled",
    "ConfigurationError",
    "ConnectionLost",
    "Context",
    "ContractError",
    "ContractViolation",
    "DataLoss",
    "DeadlineExceeded",
    "Depends",
    "Event",
    "Expired",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "Job",
    "JobHandle",
    "Message",
    "NotFound",
    "NotServed",
    "OutOfRange",
    "PermissionDenied",
    "Request",
    "ResourceExhausted",
    "RetryPolicy",
    "Router",
    "SERVER",
    "Sensitive",
    "Settings",
    "TopologyMismatch",
    "Unauthenticated",
    "Unavailable",
    "Undecodable",
    "Unimplemented",
    "Unknown",
    "UnknownKey",
    "contract",
    "correlated",
]


def test_the_public_names_are_these() -> None:
    assert sorted(bus.__all__) == NAMES
    assert sorted(dir(bus)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(bus, name) is not None


def test_another_name_is_not() -> None:
    with pytest.raises(AttributeError, match="'bus' has no attribute 'Buss'"):
        getattr(bus, "Buss")  # noqa: B009 - a type checker would refuse the attribute


# One interpreter for all: starting one is most of the time of the unit tests.
IMPORTS = """
import sys
from bus import Event, Message
from bus import contract
ours = {name for name in sys.modules if name.partition(".")[0] == "bus"}
assert ours == {"bus", "bus.contracts.contract", "bus.errors", "bus.contracts.payload", "bus.contracts.retry_policy", "bus.contracts.sensitive"}, f"a kind loads {ours}"
foreign = {"aio_pika", "aiormq", "asyncio", "msgspec", "pydantic_settings", "rich", "structlog", "tenacity", "typer", "yarl"}
assert not foreign & set(sys.modules), f"a kind loads {foreign & set(sys.modules)}"
import bus.contracts.contract
from bus.contracts import contract as again
assert contract is again is bus.contract and callable(again), "a module took the place of the decorator"
from bus import Bus
assert "aio_pika" in sys.modules
assert "structlog" not in sys.modules, "a library must not load an application's logging"
from bus import Router
@contract("names.told", version=1)
class Told(Event): ...
router = Router("names")
@router.event(Told)
async def told(event: Told) -> None: ...
assert [endpoint.function for endpoint in router.endpoints.values()] == [told], "a handler without dependencies is called as it is"
assert not {"fast_depends", "faststream"} & set(sys.modules), "who uses neither loads neither"
"""


def test_imports_load_what_is_used_and_contract_stays_the_decorator() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
