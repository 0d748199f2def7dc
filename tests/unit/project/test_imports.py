"""The import rules of pyproject.toml, beyond what import-linter and ruff can say by themselves."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from shutil import copytree

import grimp
import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("bus", "contracts", "workers")
BY_NAME = {
    "bus": {"the modules in bus/__init__.pyi"},
    "bus.cli": {"bus.cli.<command>", "bus.cli.env_file", "importlib.metadata"},
    "bus.cli.contracts": {"bus.cli.contract_usage"},
    "bus.cli.demo": {"workers.demo.keys", "workers.demo.stage", "workers.demo.story"},
    "bus.cli.exporter": {"bus.integrations.prometheus"},
    "bus.cli.metrics_pages": {"bus.integrations.prometheus", "bus.messaging.service_info"},
    "bus.cli.module_import": {"the router that the user names"},
    "bus.cli.code_changes": {"watchfiles"},
    "bus.contracts.any_checks": {"bus.contracts.guards"},
    "bus.contracts.contract": {"bus.contracts.forward_references", "bus.contracts.lossless"},
    "bus.contracts.payload": {
        "bus.contracts.encode_faults",
        "bus.contracts.guards",
        "bus.contracts.iterators",
        "bus.contracts.violations",
    },
    "bus.middleware.spans": {"bus.middleware.spans.recording"},
    "bus.operations.brokers.select": {"bus.operations.brokers.container"},
    "bus.runtime.dependencies": {"fast_depends"},
    "bus.runtime.sync_session": {"the modules in LOADED_LATER"},
    "bus.security.jwks_source": {"bus.security.key_set_download"},
    "bus.settings.loading": {"bus.contracts.violations"},
    "bus.storage.sqlalchemy.store": {"bus.storage.sqlalchemy.postgresql_engine"},
    "bus.storage.sqlalchemy.engine": {
        "bus.storage.sqlalchemy.postgresql_engine",
        "bus.storage.sqlalchemy.sqlite_engine",
    },
    "bus.storage.configured_store": {
        "bus.storage.sqlalchemy.administration",
        "bus.storage.sqlalchemy.store",
    },
    "bus.testing": {"the modules in bus/testing/__init__.py"},
    "bus.testing.plugin": {"pytest_asyncio"},
    "workers.demo.stage": {"the router of a worker in WORKERS"},
    "workers.documents.service": {"workers.documents.stored"},
    "workers.transcription": {"bus.integrations.faststream", "workers.transcription.stored"},
    "workers.transcription.engine": {"the engine that a setting names"},
    "workers.transcription.segmentation": {"pocketsphinx"},
}
"""Every module that imports by name, and what: import-linter cannot see these."""
COMPUTED = {
    "bus",
    "bus.cli",
    "bus.cli.module_import",
    "bus.runtime.sync_session",
    "bus.testing",
    "workers.demo.stage",
    "workers.transcription.engine",
}
"""Modules in `BY_NAME` whose argument is not a constant."""
NEW_IN_PYTHON = {"annotationlib"}
"""Modules of the standard library that this version of Python may not have yet."""


def modules() -> dict[str, ast.Module]:
    paths = {
        path: path.relative_to(ROOT)
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }
    return {
        ".".join(each.with_suffix("").parts).removesuffix(".__init__"): ast.parse(path.read_text())
        for path, each in paths.items()
    }


def imported_by_name(tree: ast.Module) -> set[str | None]:
    """The arguments of `import_module`; None for one that is computed."""
    found: set[str | None] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"),
                args=[argument, *_],
            ):
                found.add(
                    argument.value
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
                    else None
                )
    return found


def test_modules_that_are_imported_by_name_are_these() -> None:
    seen = {name: found for name, tree in modules().items() if (found := imported_by_name(tree))}
    assert seen.keys() == BY_NAME.keys()
    for name, found in seen.items():
        assert (None in found) == (name in COMPUTED)
        assert found - {None} <= BY_NAME[name], name


def test_every_third_party_library_of_the_bus_has_a_home_in_pyproject() -> None:
    graph = grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    homes = {
        library
        for each in contracts
        if each["type"] == "protected"
        for library in each["protected_modules"]
    }
    imported = {
        module
        for module in graph.modules
        - {name for package in PACKAGES for name in (package, *graph.find_descendants(package))}
        if any(
            name.partition(".")[0] == "bus"
            for name in graph.find_modules_that_directly_import(module)
        )
    }
    assert imported - set(sys.stdlib_module_names) - NEW_IN_PYTHON == homes


def test_nothing_inside_the_bus_imports_its_public_names() -> None:
    graph = grimp.build_graph("bus", cache_dir=None)
    assert graph.find_modules_that_directly_import("bus") == set()


PLANTED = {
    "bus/messaging/handler.py": (
        "from bus.runtime.bus import Bus",
        "bus.messaging is not allowed to import bus.runtime",
    ),
    "bus/messaging/ids.py": (
        (
            "from typing import TYPE_CHECKING\n"
            "if TYPE_CHECKING:\n    from bus.settings import Settings"
        ),
        "bus.messaging is not allowed to import bus.settings",
    ),
    "bus/contracts/schema.py": (
        "from bus import security",
        "bus.contracts is not allowed to import bus.security",
    ),
    "bus/cellar.py": ("", "bus.cellar"),
    "bus/operations/health.py": (
        "from aio_pika.abc import AbstractChannel",
        "bus.operations.health -> aio_pika",
    ),
    "bus/middleware/resend.py": (
        "from bus.middleware.deadline import client_deadline",
        "bus.middleware.resend is not allowed to import",
    ),
    "bus/contracts/sensitive.py": (
        "import bus.contracts.contract",
        "No cycles are allowed in bus.contracts",
    ),
    "bus/transports/rabbitmq/amqp/frames.py": (
        "import bus.transports.rabbitmq.fastlane.protocol",
        "bus.transports.rabbitmq.amqp is not allowed to import bus.transports.rabbitmq.fastlane",
    ),
    "contracts/documentation/v1.py": (
        "import workers.documents",
        "contracts is not allowed to import workers",
    ),
    "workers/documents/text.py": ("import pamqp.frame", "workers is not allowed to import pamqp"),
    "workers/documents/font.py": (
        "import bus.runtime.bus",
        "workers is not allowed to import bus.runtime",
    ),
}
"""A line that breaks a rule, at the end of a file, and what import-linter then prints."""


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter prints about a copy of the packages in which every rule is broken."""
    copy = tmp_path_factory.mktemp("planted")
    for package in PACKAGES:
        copytree(ROOT / package, copy / package)
    settings = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (copy / "pyproject.toml").write_text(
        settings.replace("exhaustive = true", ""), encoding="utf-8"
    )
    (copy / "exhaustive.toml").write_text(settings, encoding="utf-8")
    for name, (line, _) in PLANTED.items():
        with (copy / name).open("a", encoding="utf-8") as file:
            file.write(f"\n{line}\n")
    program = (
        "import sys; sys.path.insert(0, ''); "
        "from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    done = [
        subprocess.run(
            [sys.executable, "-c", program, "--no-cache", "--no-logo", file],
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
        )
        for file in ("pyproject.toml", "exhaustive.toml")
    ]
    assert [each.returncode for each in done] == [1, 1]
    return " ".join("".join(each.stdout for each in done).split())


@pytest.mark.parametrize("name", PLANTED)
def test_import_linter_reports(name: str, printed: str) -> None:
    assert PLANTED[name][1] in printed
