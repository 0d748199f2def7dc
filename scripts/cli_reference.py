"""Print the reference of the command line as Markdown, from the help texts of the commands.

usage: python scripts/cli_reference.py > docs/reference/command-line.md
"""

from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import typer.main

from bus import errors
from bus.cli import COMMANDS, build
from bus.cli.errors import MEANINGS, Reporter, exit_code

PREFACE = """# Command line

`scripts/cli_reference.py` generates this page from the commands, and a test compares the two.

- Data goes to standard output, everything else to standard error.
  `--json` prints data on one line for programs.
- `--debug`, anywhere before `--`, shows the traceback of an error.
  `bus --debug run` also shows [all frames of failures](../how-to/find-a-failure.md) in its log.
- Colours are only for terminals, and `NO_COLOR=1` turns them off.
- `bus --install-completion` makes the shell complete commands, options and contract types
  (bash, zsh, fish, PowerShell). `bus --show-completion` prints the script that it would install.
- `bus --version` prints the version.
- If a command, option, contract, module, router, service, queue or key is mistyped, the error
  suggests similar names.
- The [settings](settings.md) come from the environment, and from the
  [file `.env`](settings.md#the-file-env) of the current folder.
  A command that needs a broker connects to `BUS_URL`.
  If it is not set, `bus broker` and `bus demo` start a broker.

**Contracts** are Python classes, so the command line imports them.
`--contracts` or `BUS_CONTRACTS` names their modules, separated by commas.
A package includes every module in it except `__main__`.
The default is the package `contracts` in the current folder.

**A payload** is checked against its contract before anything is sent.
An error names the field and the rule, and never the value, since payloads are confidential.
A field that the contract does not have is refused, because the bus would drop its value silently.
The shell stores typed commands in its history.
Therefore read a confidential payload from a file or from standard input.

**An event** belongs to one service, and no other service publishes it.
The owner of `BUS_KEY` sends a message, so `--as SERVICE` is only required in two cases.
Set it if `BUS_KEY` is a directory with the keys of several services.
Set it also if `bus publish` runs without keys.
Without keys, requests and jobs are sent by the service `cli`.

**Types and ids can be shortened.**
If a contract has only one version, write `library.find` for `library.find.v1`.
The first 4 or more characters of a message's id are enough, as in the lines of a worker's log.
If a short form has several meanings, the command lists them and does nothing.

**Every encoding works.**
A terminal that does not use UTF-8 gets a similar character or the character's code.
JSON is escaped there, so that it stays valid.
Files and standard input must be UTF-8, with or without a byte order mark."""

EXITS = """## Exit codes

The codes are those of BSD's `sysexits.h`.
An error reply of a service has the code of the error's class, too."""


def page() -> str:
    """Return the whole page."""
    sections = [
        part for name in sorted(COMMANDS) for part in sections_of(f"bus {name}", command_of(name))
    ]
    return "\n\n".join([PREFACE, *sections, EXITS, "\n".join(exit_codes())]) + "\n"


def command_of(name: str) -> Any:
    """Return the click command that typer builds for a command of `bus`."""
    group: Any = typer.main.get_command(build([name], Reporter(debug=False)))
    return group.commands[name]


def sections_of(name: str, command: Any) -> Iterator[str]:
    """Yield the heading, usage, help and parameters of a command, then of its subcommands."""
    parameters = [
        each
        for each in command.params
        if "--help" not in each.opts and not getattr(each, "hidden", False)
    ]
    arguments = " ".join(metavar(each) for each in parameters if not each.opts[0].startswith("-"))
    options = "[OPTIONS] " if len(parameters) > len(arguments.split()) else ""
    below = getattr(command, "commands", {})
    usage = f"{name} {options}{arguments or ('[COMMAND]' if below else '')}".rstrip()
    yield f"## {name}\n\n```console\n{usage}\n```"
    yield command.help
    if parameters:
        yield "\n".join(
            ["| parameter | meaning | default |", "|---|---|---|", *map(row, parameters)]
        )
    for each in below.values():
        yield from sections_of(f"{name} {each.name}", each)


def row(parameter: Any) -> str:
    """Return the table row of one parameter."""
    default = parameter.default
    shown = "" if default in (None, False) else f"`{default}`"
    variable = f" Environment variable: `{parameter.envvar}`." if parameter.envvar else ""
    return f"| `{called(parameter)}` | {parameter.help}{variable} | {shown} |".replace(
        "SERVICE|MODULE", "SERVICE\\|MODULE"
    )


def called(parameter: Any) -> str:
    """Return a parameter in the form that the user types."""
    if not parameter.opts[0].startswith("-"):
        return name_of(parameter)
    if parameter.is_flag:
        return ", ".join(parameter.opts)
    return f"{', '.join(parameter.opts)} {parameter.metavar or kind(parameter)}"


def kind(parameter: Any) -> str:
    """Return the placeholder for the value of an option that has no metavar."""
    annotation = parameter.type_descriptor.annotation
    if get_origin(annotation) is Literal:
        return " or ".join(get_args(annotation))
    return "NUMBER" if annotation in (int, float) else "TEXT"


def metavar(parameter: Any) -> str:
    """Return an argument for the usage line, in brackets if it is optional."""
    return name_of(parameter) if parameter.required else f"[{name_of(parameter)}]"


def name_of(parameter: Any) -> str:
    """Return the name of an argument."""
    # Do not show `PAYLOAD...`: a command accepts several payloads only to refuse them.
    again = "..." if parameter.nargs < 0 and parameter.name != "payload" else ""
    return f"{parameter.metavar or parameter.name.upper()}{again}"


def exit_codes() -> Iterator[str]:
    """Yield the rows of the table of exit codes: code, meaning, and errors with this code."""
    classes = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.BusError)
    ]
    yield "| code | meaning | errors |"
    yield "|---|---|---|"
    for code, meaning in MEANINGS.items():
        names = [f"`{each.__name__}`" for each in classes if exit_code(each()) == code]
        more = [*names, "any other exception"] if code == exit_code(Exception()) else names
        yield f"| {code} | {meaning} | {', '.join(more)} |"


if __name__ == "__main__":
    print(page(), end="")
