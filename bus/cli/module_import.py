"""Import of the modules that a user names, with errors that name the place and similar names."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from bus.errors import BusError, ConfigurationError
from bus.messaging.failure_location import failure_location
from bus.messaging.suggestions import did_you_mean

__all__ = [
    "dotted_name",
    "import_module_named",
    "import_with_submodules",
    "prepend_working_directory",
]

MAX_TEXT = 200
"""Maximum number of characters of an error's text."""


def dotted_name(path: str) -> str | None:
    """Return the name by which a Python file or package can be imported from the working directory.

    The name is None if the file cannot be imported from there.
    """
    absolute = Path(os.path.normpath(Path.cwd() / path))
    if not absolute.is_relative_to(Path.cwd()):
        return None
    parts = absolute.relative_to(Path.cwd()).with_suffix("").parts
    parts = parts[:-1] if parts[-1:] == ("__init__",) else parts
    return ".".join(parts) if parts and all(part.isidentifier() for part in parts) else None


def prepend_working_directory() -> None:
    """Put the working directory first on `sys.path`, as `python -m` does."""
    if sys.path[:1] != [directory := str(Path.cwd())]:
        sys.path.insert(0, directory)


def import_module_named(name: str) -> object:
    """Import a module, and redirect its output from standard output to standard error.

    The standard output of a command is only for data.

    Raises:
        ConfigurationError: The module cannot be imported. The error names the file and line.
        BusError: The module declares a contract or a handler incorrectly.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return importlib.import_module(name)
    except BusError as error:
        # The text already names the incorrect declaration. The instruction stays at its end.
        error.args = (f"{import_location(error)}: {error}", *error.args[1:])
        raise
    except ModuleNotFoundError as error:
        if error.name and not f"{name}.".startswith(f"{error.name}."):
            raise ConfigurationError(
                f"{name} imports {error.name!r}, which does not exist, at "
                f"{import_location(error)}. Install that module, or correct the import."
            ) from error
        raise ConfigurationError(
            f"module {error.name!r} does not exist. "
            f"Run `bus` in a folder from which {name!r} can be imported"
            f"{suggest_siblings(name, error.name) or '.'}"
        ) from error
    except (Exception, SystemExit) as error:  # the import runs the module's code
        raise ConfigurationError(
            f"{name} cannot be imported: {describe_import_error(error)}. "
            "Correct the module, or see the traceback with `bus --debug`."
        ) from error


def describe_import_error(error: BaseException) -> str:
    """Return the class, text and place of an error that a module raised at its import.

    Only the first line of the text is shown. The other lines of a pydantic error contain values.
    """
    if isinstance(error, SystemExit):
        text = "the module called sys.exit"
    else:
        text = error.msg if isinstance(error, SyntaxError) else str(error)
    line = text.strip().partition("\n")[0].rstrip(".")[:MAX_TEXT]
    return f"{type(error).__name__}{f': {line}' if line else ''} at {import_location(error)}"


def import_location(error: BaseException) -> str:
    """Return the file, line and function of an error at import. A module has no function."""
    if isinstance(error, SyntaxError) and error.filename:
        path = Path(error.filename)
        name = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"{name}:{error.lineno or 1}"
    return (failure_location(error) or "an unknown place").removesuffix(" <module>")


def import_with_submodules(name: str) -> list[str]:
    """Import a module, or a package and every module in it, and return the modules' names."""
    module = import_module_named(name)
    submodules = sorted(
        {
            f"{name}.{submodule}"
            for folder in getattr(module, "__path__", [])
            for submodule in modules_in(Path(folder))
        }
    )
    for submodule in submodules:
        import_module_named(submodule)
    return submodules or [name]


def modules_in(folder: Path) -> Iterable[str]:
    """Yield the dotted names of the modules in a package's folder and its subfolders.

    Modules named `__main__` are skipped, because an import would run a program.
    """
    for path in folder.rglob("*.py"):
        parts = path.relative_to(folder).with_suffix("").parts
        if (
            parts[-1] != "__init__"
            and parts[-1] != "__main__"
            and all(part.isidentifier() for part in parts)
        ):
            yield ".".join(parts)


def suggest_siblings(name: str, missing: str | None) -> str:
    """Return a suggestion of similar module names, or an empty string if there is none.

    Args:
        name: Dotted name of the module that the user named.
        missing: Module that Python did not find. If it is neither `name` nor the first part of
            `name`, there is no suggestion.
    """
    parent, _, last = name.rpartition(".")
    if missing != name and missing != name.partition(".")[0]:
        return ""
    folder = Path(*parent.split(".")) if missing == name and parent else Path()
    part = last if missing == name else name.partition(".")[0]
    with contextlib.suppress(OSError):
        stems = [path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()]
        return did_you_mean(part, [stem for stem in stems if stem.isidentifier()])
    return ""
