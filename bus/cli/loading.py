"""Import of the modules, routers and contracts that a user names.

If a name is unknown, the error suggests similar names.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bus.cli.module_import import (
    dotted_name,
    import_module_named,
    import_with_submodules,
    prepend_working_directory,
)
from bus.contracts.contract import CATALOG, Contract, Kind, require_resolved
from bus.errors import (
    ConfigurationError,
    ContractError,
    InvalidArgument,
    NotFound,
)
from bus.messaging.suggestions import did_you_mean
from bus.runtime.router import Router

__all__ = ["Known", "contract_named", "known_contracts", "load_router", "load_routers"]

DEFAULT_MODULE = "contracts"
DEFAULT_ROUTER = "router"
EXAMPLE = f"workers.transcription:{DEFAULT_ROUTER}"
"""Example of a router for error messages that cannot name a router of the user."""
MAX_SHOWN_MODULES = 5
"""Maximum number of module names that an error or a caption shows."""
PRINTABLE = re.compile(r"[\w.-]{1,160}")
"""Pattern of the names that an error may show.

Other text is not shown, because it may be a payload that the user typed in the wrong argument.
"""
COMMANDS = {"request": "call", "event": "publish", "job": "submit"}
"""Kinds of contracts, each with the command that sends a message of this kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """Contracts that this command has loaded, and the modules that it imported to find them."""

    contracts: tuple[Contract, ...]
    modules: tuple[str, ...]

    def looked_at(self) -> str:
        """Return `searched` and the modules' names. Errors and captions show this text."""
        names = ", ".join(self.modules[:MAX_SHOWN_MODULES])
        more = len(self.modules) - MAX_SHOWN_MODULES
        return f"searched {names}{f' and {more} more' if more > 0 else ''}"


def known_contracts(chosen: Sequence[str]) -> Known:
    """Import modules, and return their contracts.

    Args:
        chosen: Names of modules or packages. An item may have several names, separated by commas.
            All modules of a package are imported. If `chosen` is empty, the package `contracts` in
            this folder is imported.

    Raises:
        ConfigurationError: No modules are named and this folder has no package `contracts`, or a
            module cannot be imported.
        ContractError: The type of a field in a contract is not defined.
    """
    prepend_working_directory()
    names = [name for item in chosen for name in re.split(r"[,\s]+", item) if name]
    if not names and not has_default():
        raise ConfigurationError(
            f"{Path.cwd()} has no package {DEFAULT_MODULE!r}, so no contracts are loaded. "
            "Name the modules that define contracts by --contracts or BUS_CONTRACTS."
        )
    if not names:
        check_is_local(DEFAULT_MODULE)
    modules = tuple(
        module for name in names or [DEFAULT_MODULE] for module in import_with_submodules(name)
    )
    contracts = tuple(sorted(CATALOG, key=lambda contract: contract.type))
    for contract in contracts:
        require_resolved(contract)
    return Known(contracts=contracts, modules=modules)


def contract_named(type_: str, chosen: Sequence[str], *, kind: Kind | None = None) -> Contract:
    """Return the contract of a type.

    Args:
        type_: Type of the contract, as the user typed it. The version may be missing if the
            command accepts only one version.
        chosen: Names of modules, as in `known_contracts`.
        kind: Kind of contract that the command accepts. None accepts all kinds.

    Raises:
        NotFound: No contract has this type. The error names similar types.
        InvalidArgument: The version is missing, and there are several. The error names them.
        ContractError: The contract is of another kind. The error names the command for that kind.
        ConfigurationError: As in `known_contracts`.
    """
    known = known_contracts(chosen)
    contract = _matching(type_, known.contracts, kind)
    if contract is None:
        problem = (
            f"contract {type_!r} does not exist"
            if PRINTABLE.fullmatch(type_)
            else "the argument TYPE is not the type of a contract"
        )
        suggestion = did_you_mean(type_, [contract.type for contract in known.contracts])
        raise NotFound(f"{problem}{suggestion} ({known.looked_at()})")
    if kind is not None and contract.kind != kind:
        article = "an" if contract.kind == "event" else "a"
        raise ContractError(
            f"{contract.type} is {article} {contract.kind}. Use `bus {COMMANDS[contract.kind]}`."
        )
    return contract


def _matching(type_: str, contracts: Iterable[Contract], kind: Kind | None) -> Contract | None:
    """Return the contract of a type, or the only version of a contract with this name."""
    named = [contract for contract in contracts if type_ in {contract.type, contract.name}]
    exact = [contract for contract in named if contract.type == type_]
    of_kind = [contract for contract in named if kind in {None, contract.kind}]
    found = exact or of_kind or named
    if len(found) > 1:
        versions = [
            contract.type for contract in sorted(found, key=lambda contract: contract.version)
        ]
        raise InvalidArgument(
            f"{type_} has several versions: {', '.join(versions)}. "
            f"Write the type with its version, such as {versions[-1]}."
        )
    return found[0] if found else None


def load_router(target: str) -> Router:
    """Import a router.

    Args:
        target: Dotted name of a module and name of a router in this module, as `MODULE:ROUTER`.

    Raises:
        ConfigurationError: The module cannot be imported, or has no such router.
    """
    module, _, name = target.partition(":")
    is_path = "/" in module or module.endswith(".py")
    if not module or not name or is_path:
        dotted = dotted_name(module) if is_path else module
        example = f"{dotted}:{name or DEFAULT_ROUTER}" if dotted else EXAMPLE
        raise ConfigurationError(
            f"{target!r} does not name a router. Write MODULE:ROUTER, for example {example}."
        )
    prepend_working_directory()
    attributes = vars(import_module_named(module))
    router = attributes.get(name)
    if isinstance(router, Router):
        return router
    problem = "does not exist" if router is None else f"is of type {type(router).__name__}"
    routers = [attribute for attribute, value in attributes.items() if isinstance(value, Router)]
    remedy = did_you_mean(name, routers) or (
        f". Name the attribute that holds the router: {module}:{f' or {module}:'.join(routers)}."
        if routers
        else f", and {module} has no router. Name the module of the router and the attribute that "
        f"holds it, for example {EXAMPLE}."
    )
    raise ConfigurationError(f"{target} must be a bus.Router, but {problem}{remedy}")


def load_routers(targets: Sequence[str]) -> list[Router]:
    """Import the routers of different services.

    Args:
        targets: Names of routers, as in `load_router`.

    Raises:
        ConfigurationError: A router cannot be loaded, or two routers belong to one service.
    """
    routers: dict[str, tuple[str, Router]] = {}
    for target in targets:
        router = load_router(target)
        if router.name in routers:
            raise ConfigurationError(
                f"{routers[router.name][0]} and {target} both belong to the service "
                f"{router.name!r}. Name one router, and include the other one with Router.include. "
                "To run more processes of one router, use --processes."
            )
        routers[router.name] = target, router
    return [router for _, router in routers.values()]


def has_default() -> bool:
    """Return True if the working directory has a package or module `contracts`."""
    return Path(DEFAULT_MODULE).is_dir() or Path(f"{DEFAULT_MODULE}.py").is_file()


def check_is_local(name: str) -> None:
    """Raise `ConfigurationError` if Python does not import this package from the working directory.

    This can happen if the local package has no `__init__.py`. Python then prefers a package that
    has one, even if that package is later on `sys.path`.
    """
    module = import_module_named(name)
    paths = [*getattr(module, "__path__", [])] or [getattr(module, "__file__", None) or ""]
    if not any(Path(path).is_relative_to(Path.cwd()) for path in paths):
        raise ConfigurationError(
            f"Python imports {name!r} from {paths[0]} and not from this folder. "
            "Add an __init__.py to the package in this folder, or use --contracts."
        )
