import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.cli.loading import contract_named, known_contracts, load_router, load_routers
from bus.contracts.contract import CATALOG
from bus.errors import ConfigurationError, ContractError, InvalidArgument, NotFound
from bus.messaging.suggestions import did_you_mean
from bus.runtime.router import Router

CONTRACTS = """
from bus import Event, Request
from bus import contract

print("imported")

@contract("{service}.find", version=1)
class Find(Request[None]):
    title: str

@contract("{service}.renamed", version=1)
class Found(Event):
    pass
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield an empty current folder, and remove the modules that the test imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = dict(sys.modules)
    for name in [
        each for each in sys.modules if each == "contracts" or each.startswith("contracts.")
    ]:
        del sys.modules[name]
    yield tmp_path
    sys.modules.clear()
    sys.modules.update(before)


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def types(chosen: list[str], service: str) -> list[str]:
    return [each.type for each in known_contracts(chosen).contracts if each.service == service]


def test_the_package_contracts_in_this_folder_is_the_default_and_stands_for_all_in_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(here / "contracts/__init__.py")
    write(here / "contracts/here/v1.py", CONTRACTS.format(service="here"))
    write(here / "contracts/__main__.py", "raise SystemExit('a program')")
    assert types([], "here") == ["here.find.v1", "here.renamed.v1"]
    assert known_contracts([]).modules == ("contracts.here.v1",)
    assert capsys.readouterr().out == ""  # the output of an imported module is not data


def test_another_package_contracts_is_not_taken_for_this_folders(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(here / "elsewhere/contracts/__init__.py")
    write(here / "app/contracts/v1.py", CONTRACTS.format(service="app"))
    monkeypatch.chdir(here / "app")
    sys.path.insert(0, str(here / "elsewhere"))
    with pytest.raises(
        ConfigurationError,
        match=r"elsewhere/contracts and not from this folder. Add an __init__.py",
    ):
        known_contracts([])


def test_modules_can_be_named_with_commas_or_one_by_one(here: Path) -> None:
    write(here / "first_of_two.py", CONTRACTS.format(service="first"))
    write(here / "second_of_two.py", CONTRACTS.format(service="second"))
    known = known_contracts(["first_of_two, second_of_two"])
    assert (
        known.modules
        == known_contracts(["first_of_two", "second_of_two"]).modules
        == ("first_of_two", "second_of_two")
    )
    assert {"first.find.v1", "second.find.v1"} <= {each.type for each in known.contracts}


def test_without_contracts_the_error_says_how_to_name_them(here: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"no package 'contracts'.*--contracts or BUS_CONTRACTS"
    ):
        known_contracts([])


def test_an_unknown_type_gets_the_nearest_and_the_modules_that_were_looked_at(here: Path) -> None:
    write(here / "shelf_contracts.py", CONTRACTS.format(service="shelf"))
    with pytest.raises(
        NotFound,
        match=r"'shelf.fnid.v1' does not exist; did you mean 'shelf.find.v1'\? "
        r"\(searched shelf_contracts\)",
    ):
        contract_named("shelf.fnid.v1", ["shelf_contracts"])
    with pytest.raises(NotFound, match=r"'shelf.fnid' does not .*; did you mean 'shelf.find.v1'\?"):
        contract_named("shelf.fnid", ["shelf_contracts"])


def test_the_only_version_of_a_contract_may_be_left_out(here: Path) -> None:
    write(here / "rack_contracts.py", CONTRACTS.format(service="rack"))
    assert contract_named("rack.find", ["rack_contracts"]).type == "rack.find.v1"
    assert contract_named("rack.renamed", ["rack_contracts"], kind="event").version == 1
    with pytest.raises(ContractError, match=r"rack.renamed.v1 is an event\. Use `bus publish`"):
        contract_named("rack.renamed", ["rack_contracts"], kind="request")


def test_a_name_with_several_versions_gets_a_list_of_them(here: Path) -> None:
    versions = CONTRACTS.format(service="wing") + (
        '@contract("wing.find", version=10)\nclass Find10(Request[None]): ...\n'
        '@contract("wing.find", version=2)\nclass Find2(Request[None]): ...\n'
    )
    write(here / "wing_contracts.py", versions)
    with pytest.raises(
        InvalidArgument,
        match=r"wing.find has several versions: wing.find.v1, wing.find.v2, wing.find.v10\. "
        r"Write the type with its version, such as wing.find.v10\.",
    ):
        contract_named("wing.find", ["wing_contracts"])
    assert contract_named("wing.find.v2", ["wing_contracts"]).version == 2


def test_a_payload_in_the_place_of_a_type_is_not_shown(here: Path) -> None:
    write(here / "door_contracts.py", CONTRACTS.format(service="door"))
    with pytest.raises(NotFound, match="is not the type of a contract") as caught:
        contract_named('{"patient": "Eleonora Quist"}', ["door_contracts"])
    assert "Quist" not in str(caught.value)


def test_a_type_of_another_kind_names_the_command_for_it(here: Path) -> None:
    write(here / "lamp_contracts.py", CONTRACTS.format(service="lamp"))
    with pytest.raises(ContractError, match=r"is an event\. Use `bus publish`"):
        contract_named("lamp.renamed.v1", ["lamp_contracts"], kind="request")
    assert (
        contract_named("lamp.renamed.v1", ["lamp_contracts"], kind="event").name == "lamp.renamed"
    )


def test_a_module_that_cannot_be_imported_is_told_with_what_may_have_been_meant(here: Path) -> None:
    write(here / "services/library/__init__.py")
    write(here / "services/broken.py", "1 / 0  # Eleonora Quist")
    write(here / "services/needy.py", "import not_there.at_all")
    for name, told in (
        (
            "services.needy",
            r"needy imports 'not_there', which does not exist, at services/needy.py:1\. Install",
        ),
        ("services.libary", r"module 'services.libary' does not exist.*did you mean 'library'\?"),
        ("servces.library", r"module 'servces' does not exist.*did you mean 'services'\?"),
        ("nowhere.at_all", "module 'nowhere' does not exist"),
        (
            "services.broken",
            r"imported: ZeroDivisionError: division by zero at services/broken.py:1\. Correct",
        ),
    ):
        with pytest.raises(ConfigurationError, match=told):
            known_contracts([name])


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("x = (1", r"SyntaxError: '\(' was never closed at services/inner.py:1\. Correct"),
        ("if True:\nx = 1", r"IndentationError: expected an indented block .* services/inner.py:2"),
        ("# coding: none", r"SyntaxError: unknown encoding: none at services/inner.py:"),
        ("x = '\0'", r"SyntaxError: source code string cannot contain null bytes at "),
        ("from json import no", r"ImportError: cannot import name 'no' .*at services/inner.py:1\."),
        ("import json\njson.loads('{')", r"JSONDecodeError: .* at services/inner.py:2\. Correct"),
        ("def f():\n    raise KeyError\nf()", r"KeyError at services/inner.py:2 f\. Correct"),
        ("raise ValueError('one.\\ntwo')", r"ValueError: one at services/inner.py:1\. Correct"),
        ("import sys\nsys.exit('4711')", r"SystemExit: the module called sys.exit at services/inn"),
        ("raise SystemExit(0)", r"SystemExit: the module called sys.exit at services/inner.py:1"),
    ],
)
def test_an_error_at_import_is_told_with_its_file_line_and_text(
    here: Path, code: str, told: str
) -> None:
    write(here / "services/inner.py", code)
    write(here / "services/outer.py", "from services import inner")
    with pytest.raises(ConfigurationError, match=told) as caught:
        load_router("services.outer:router")
    assert str(caught.value).startswith("services.outer cannot be imported: ")
    assert "4711" not in str(caught.value)


def test_a_wrong_declaration_is_told_with_its_file_and_line(here: Path) -> None:
    write(here / "wrong.py", CONTRACTS.format(service="not a service"))
    with pytest.raises(ContractError, match=r"^wrong.py:7: .*is not a valid contract name"):
        known_contracts(["wrong"])


def test_a_router_by_a_wrong_name_gets_the_routers_that_are_there(here: Path) -> None:
    write(here / "desk.py", "from bus import Router\nrouter = Router('desk')\nvalue = 1\n")
    assert isinstance(load_router("desk:router"), Router)
    for target, told in (
        (
            "desk:ruoter",
            r"desk:ruoter must be a bus.Router, but does not exist; did you mean 'router'\?",
        ),
        (
            "desk:value",
            r"is of type int\. Name the attribute that holds the router: desk:router\.",
        ),
        ("desk", "does not name a router. Write MODULE:ROUTER, for example desk:router"),
    ):
        with pytest.raises(ConfigurationError, match=told):
            load_router(target)


def test_a_module_with_several_routers_gets_all_of_them_and_one_with_none_an_example(
    here: Path,
) -> None:
    two = "from bus import Router\nleft = Router('left')\nright = Router('right')\nvalue = 1\n"
    write(here / "hall.py", two)
    write(here / "attic.py", "class Box: ...\n")
    for target, told in (
        ("hall:value", r"Name the attribute that holds the router: hall:left or hall:right\."),
        (
            "attic:Box",
            r"is of type type, and attic has no router\. .* example workers.transcription:router\.",
        ),
    ):
        with pytest.raises(ConfigurationError, match=told):
            load_router(target)


def test_routers_of_different_services_are_loaded_and_a_service_twice_is_told_to_include(
    here: Path,
) -> None:
    write(here / "hall.py", "from bus import Router\nleft, right = Router('left'), Router('right')")
    write(here / "attic.py", "from bus import Router\nrouter = Router('left')\n")
    assert [each.name for each in load_routers(["hall:right", "hall:left"])] == ["right", "left"]
    for second in ("attic:router", "hall:left"):
        with pytest.raises(
            ConfigurationError,
            match=rf"hall:left and {second} both belong to the service 'left'\. Name one router, "
            r"and include the other one with Router\.include\. .* --processes",
        ):
            load_routers(["hall:left", "hall:right", second])


@pytest.mark.parametrize(
    ("target", "example"),
    [
        ("bakery/service.py", "bakery.service:router"),
        ("./bakery/service.py:routes", "bakery.service:routes"),
        ("bakery/service:routes", "bakery.service:routes"),
        ("bakery/", "bakery:router"),
        ("bakery/__init__.py", "bakery:router"),
        ("service.py:routes", "service:routes"),
        ("../elsewhere/service.py", "workers.transcription:router"),
        ("my-bakery/service.py", "workers.transcription:router"),
    ],
)
def test_a_path_in_the_place_of_a_module_gets_the_modules_name(
    here: Path, target: str, example: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"does not name a router.*example {example}\\."):
        load_router(target)
    absolute = f"{here}/{target}"
    with pytest.raises(ConfigurationError, match=f"does not name a router.*example {example}\\."):
        load_router(absolute)


@pytest.mark.parametrize(
    ("name", "known", "told"),
    [
        (
            "library.fnid.v1",
            ["library.find.v1", "library.scan.v1"],
            "; did you mean 'library.find.v1'?",
        ),
        ("a.b", ["a.b.v1", "a.b.v2"], "; did you mean 'a.b.v1' or 'a.b.v2'?"),
        ("nothing-like-it", ["library.find.v1"], ""),
        ("", ["library.find.v1"], ""),
    ],
)
def test_only_the_nearest_are_suggested(name: str, known: list[str], told: str) -> None:
    assert did_you_mean(name, known) == told


def test_a_contract_with_a_type_that_is_not_defined_is_refused(here: Path) -> None:
    contract_of_an_undefined_type = """
from __future__ import annotations
from bus import Event, contract

@contract("cli-undefined.told", version=1)
class Told(Event):
    amount: Decimal
"""
    (here / "contracts.py").write_text(contract_of_an_undefined_type)
    try:
        with pytest.raises(ContractError, match="the field `amount` needs the name 'Decimal'"):
            known_contracts([])
    finally:
        CATALOG._by_type.pop("cli-undefined.told.v1")
