import re
from pathlib import Path

import pytest

from tests.layers import HOMES, LAYERS, violations

ROOT = Path(__file__).parents[2]

PLANTED = {
    "an import that points up": ("handler", "from bus.runtime.bus import Bus", "imports bus.runtime.bus, which is up"),
    "an import that points up, for types only": (
        "handler",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from bus.runtime.bus import Bus",
        "imports bus.runtime.bus, which is up",
    ),
    "the public names used from inside": ("app", "from bus import Bus", "imports bus, which is up"),
    "a module imported from its package": ("handler", "from bus import app", "imports bus.runtime.bus, which is up"),
    "an import by name": (
        "handler",
        "import importlib\nimportlib.import_module('bus.runtime.bus')",
        "imports bus.runtime.bus, which is up",
    ),
    "an import inside a function": ("app", "def f():\n    import json", "an import inside a function"),
    "an import inside an async method": ("app", "class A:\n    async def f(self):\n        from json import loads", "an import inside"),
    "a room without a layer": ("cellar", "", "bus.cellar: a new room"),
    "a library away from home": ("app", "from aio_pika.abc import AbstractChannel", "aio_pika is at home in bus.transports.rabbitmq only"),
    "a library without a home": ("app", "import requests", "requests has no home"),
    "a middleware that imports another": (
        "middleware/retry",
        "from bus.middleware.deadline import deadline",
        "a middleware imports another",
    ),
    "the environment read": ("app", "import os\nos.environ['HOME']", "reads the environment"),
    "the environment read by another name": ("app", "from os import getenv", "reads the environment"),
    "a cycle in one layer": ("envelope", "import bus.messaging.topology.model", "an import cycle"),
    "a contract that knows a worker": ("../contracts/note/v1", "import workers.note", "contracts imports workers.note"),
    "a worker with a broker's library": ("../workers/note", "import pamqp.frame", "workers imports pamqp.frame"),
}


def house(root: Path) -> Path:
    """A small house that keeps the rules."""
    sources = {
        "__init__": "",
        "errors": "",
        "envelope": "from bus.errors import BusError",
        "topology": "import bus.messaging.envelope",
        "app": "from bus.messaging.envelope import Envelope\nimport json, pydantic",
        "middleware/__init__": "",
        "middleware/deadline": "from bus import errors",
        "middleware/retry": "",
        "settings": "import os\nimport pydantic_settings\nos.environ",
        "transports/rabbitmq/__init__": "import aio_pika.abc",
        "../workers/note": "import contracts.note.v1, numpy",
        "../contracts/note/v1": "import bus, pydantic",
    }
    for name, source in sources.items():
        plant(root, name, source)
    return root


def plant(root: Path, name: str, source: str) -> None:
    path = root / "bus" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source, encoding="utf-8")


def test_the_house_keeps_its_rules() -> None:
    assert violations(ROOT) == []


def test_a_house_that_keeps_the_rules_passes(tmp_path: Path) -> None:
    assert violations(house(tmp_path)) == []


@pytest.mark.parametrize("planted", PLANTED, ids=list(PLANTED))
def test_a_planted_breach_is_found(planted: str, tmp_path: Path) -> None:
    name, source, message = PLANTED[planted]
    (tmp_path / "bus").mkdir()
    plant(house(tmp_path), name, source)
    found = violations(tmp_path)
    assert len(found) == 1
    assert message in found[0]


def test_no_room_is_on_two_floors() -> None:
    rooms = [room for floor in LAYERS.values() for room in floor]
    assert len(rooms) == len(set(rooms))


def test_every_home_is_in_the_house() -> None:
    assert all(room.partition(".")[0] == "bus" for rooms in HOMES.values() for room in rooms)


def test_contributing_shows_every_room_on_its_floor() -> None:
    table = re.findall(r"^\| (\d) \w+ \| (.*) \|$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    shown = {int(floor): {room_of(name) for name in re.findall(r"`([^`]+)`", rooms)} for floor, rooms in table}
    assert shown == {floor: {*rooms} for floor, rooms in LAYERS.items()}


def room_of(name: str) -> str:
    """The room that the table calls by the place of its source."""
    return ".".join(["bus", *name.removeprefix("bus/").removesuffix("/*").removesuffix("__init__.py").split("/")]).rstrip(".")
