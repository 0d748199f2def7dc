"""Finding what people name: modules, routers, contracts; and what they may have meant."""

import contextlib
import importlib
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bus.contracts.contract import CATALOG, Contract, Kind
from bus.errors import BusError, ConfigurationError, ContractError, NotFound
from bus.messaging.suggestions import did_you_mean
from bus.runtime.router import Router

__all__ = ["Known", "contract_named", "known_contracts", "load_router"]

DEFAULT_MODULE = "contracts"
SHOWN = 5
"""Modules that an error names; who has more knows where they are."""
PRINTABLE = re.compile(r"[\w.-]{1,160}")
COMMANDS = {"request": "call", "event": "publish", "job": "submit"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The contracts that this command knows, and the modules that it imported to know them."""

    contracts: tuple[Contract, ...]
    modules: tuple[str, ...]

    def looked_at(self) -> str:
        """The modules, for an error."""
        shown = ", ".join(self.modules[:SHOWN])
        more = len(self.modules) - SHOWN
        return f"looked at {shown}{f' and {more} more' if more > 0 else ''}"


def known_contracts(chosen: Sequence[str]) -> Known:
    """The contracts of the `chosen` modules (each may be several, with commas), else of `contracts` in this folder.

    A package stands for itself and every module in it. `ConfigurationError` says what cannot be imported.
    """
    importable_here()
    named = [name for each in chosen for name in re.split(r"[,\s]+", each) if name]
    if not named and not has_default():
        raise ConfigurationError(
            f"no contracts are known: {Path.cwd()} has no package {DEFAULT_MODULE!r}; name the modules that hold them by --contracts "
            "or BUS_CONTRACTS"
        )
    if not named:
        check_is_here(DEFAULT_MODULE)
    modules = tuple(
        module for name in named or [DEFAULT_MODULE] for module in imported_with_contents(name)
    )
    return Known(contracts=tuple(sorted(CATALOG, key=lambda each: each.type)), modules=modules)


def contract_named(type_: str, chosen: Sequence[str], *, kind: Kind | None = None) -> Contract:
    """The contract of this type, of this kind; `NotFound` names the nearest, `ContractError` the command for another kind."""
    known = known_contracts(chosen)
    found = next((each for each in known.contracts if each.type == type_), None)
    if found is None:
        # What looks like no type may be a payload in the wrong place, which is not shown.
        shown = (
            f"there is no contract {type_!r}"
            if PRINTABLE.fullmatch(type_)
            else "that is no contract's type"
        )
        raise NotFound(
            f"{shown}{did_you_mean(type_, [each.type for each in known.contracts])} ({known.looked_at()})"
        )
    if kind is not None and found.kind != kind:
        raise ContractError(
            f"{type_} is {'an event' if found.kind == 'event' else f'a {found.kind}'}: use `bus {COMMANDS[found.kind]}`"
        )
    return found


def load_router(target: str) -> Router:
    """The router that `MODULE:ROUTER` names; `ConfigurationError` says what is wrong with it."""
    module, _, name = target.partition(":")
    if not module or not name:
        raise ConfigurationError(
            f"{target!r} names no router; write MODULE:ROUTER, for example {module or 'workers.transcription'}:router"
        )
    importable_here()
    within = vars(import_module_named(module))
    router = within.get(name)
    if isinstance(router, Router):
        return router
    found = "nothing" if router is None else f"a {type(router).__name__}"
    routers = [each for each, value in within.items() if isinstance(value, Router)]
    meant = did_you_mean(name, routers) or (
        f"; its routers: {', '.join(routers)}" if routers else ""
    )
    raise ConfigurationError(
        f"{module} has {found} by the name {name!r}; it has to be a bus.Router{meant}"
    )


def importable_here() -> None:
    """Modules of this folder can be imported, and come first, as with `python -m`."""
    if sys.path[:1] != [here := str(Path.cwd())]:
        sys.path.insert(0, here)


def has_default() -> bool:
    """Whether this folder has contracts where they usually are."""
    return Path(DEFAULT_MODULE).is_dir() or Path(f"{DEFAULT_MODULE}.py").is_file()


def check_is_here(name: str) -> None:
    """`ConfigurationError` where Python finds another package of this name: one with an `__init__.py` comes before one without."""
    module = import_module_named(name)
    places = [*getattr(module, "__path__", [])] or [getattr(module, "__file__", None) or ""]
    if not any(Path(each).is_relative_to(Path.cwd()) for each in places):
        raise ConfigurationError(
            f"Python finds {name!r} in {places[0]} and not in this folder: give this one an __init__.py, or use --contracts"
        )


def import_module_named(name: str) -> object:
    """The module; `ConfigurationError` where it cannot be imported. What it prints meanwhile is no data of ours."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except BusError:
        raise  # its contracts or handlers are declared wrongly, and the error says how
    except ModuleNotFoundError as error:
        if error.name and not f"{name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"{name} imports {error.name!r}, and there is no such module: install it, or mend the import"
            ) from error
        raise ConfigurationError(
            f"there is no module {error.name!r}; run this where {name!r} can be imported{siblings(name, error.name)}"
        ) from error
    except Exception as error:  # whatever a module of somebody's may raise while it is imported
        raise ConfigurationError(
            f"{name} cannot be imported ({type(error).__name__}); with `bus --debug` it shows where"
        ) from error


def imported_with_contents(name: str) -> list[str]:
    """Import a module, and of a package everything in it; their names."""
    module = import_module_named(name)
    inner = sorted(
        {
            f"{name}.{each}"
            for folder in getattr(module, "__path__", [])
            for each in modules_in(Path(folder))
        }
    )
    for each in inner:
        import_module_named(each)
    return inner or [name]


def modules_in(folder: Path) -> Iterable[str]:
    """Dotted names of the modules below a package's folder. `__main__` is a program and not a module to import."""
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        if (
            parts[-1] != "__init__"
            and parts[-1] != "__main__"
            and all(part.isidentifier() for part in parts)
        ):
            yield ".".join(parts)


def siblings(name: str, missing: str | None) -> str:
    """What the module may have been meant to be, where it is its own name that is not found."""
    parent, _, last = name.rpartition(".")
    if missing != name and missing != name.partition(".")[0]:
        return ""
    folder = Path(*parent.split(".")) if missing == name and parent else Path()
    wanted = last if missing == name else name.partition(".")[0]
    with contextlib.suppress(OSError):
        names = [each.stem for each in folder.iterdir() if each.suffix == ".py" or each.is_dir()]
        return did_you_mean(wanted, [each for each in names if each.isidentifier()])
    return ""
