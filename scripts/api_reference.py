"""Print the reference of the public Python names as Markdown, from the source and its docstrings.

usage: python scripts/api_reference.py > docs/reference/api.md

The script parses the source and does not import it. Therefore the page shows the code exactly as it
is written, and is the same on every version of Python.
"""

import ast
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
WIDTH = 100  # a longer signature is split over several lines

PREFACE = """# Python interface

This page lists every public name with its signature and its docstring.
`scripts/api_reference.py` generates it from the code, and a test compares the two.
Times are in seconds.
The [errors](errors.md) and the [settings](settings.md) have their own pages."""

SECTIONS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "Contracts": {
        "bus.contracts.contract": ("contract", "Message", "Request", "Event", "Job", "Catalog"),
        "bus.contracts.sensitive": ("Sensitive",),
        "bus.contracts.criticality": ("Criticality",),
    },
    "Requests, events and jobs": {
        "bus.runtime.bus": ("Bus",),
        "bus.runtime.sync_bus": ("SyncBus",),
        "bus.settings.service_config": ("ServiceConfig",),
        "bus.settings.service_defaults": ("ServiceDefaults",),
        "bus.runtime.sync_job_handle": ("SyncJobHandle",),
        "bus.messaging.context": ("JobHandle", "correlated"),
        "bus.messaging.jobs.status": ("JobStatus",),
        "bus.messaging.criticality": ("lowered_criticality",),
    },
    "Serving": {
        "bus.runtime.router": ("Router",),
        "bus.runtime.lifespan": ("Lifespan",),
        "bus.contracts.retry_policy": ("RetryPolicy",),
        "bus.messaging.resilience.adaptive_limit": ("AdaptiveLimit",),
        "bus.messaging.resilience.dependency": ("Dependency",),
        "bus.messaging.resilience.rate_limit": ("RateLimit",),
        "bus.messaging.context": ("Context", "Sender"),
        "bus.runtime.dependencies": ("Depends",),
    },
    "Discovery": {
        "bus.runtime.discovery.asker": ("Asker",),
        "bus.messaging.control": (
            "Ping",
            "GetInfo",
            "GetStats",
            "FindMessages",
            "Target",
            "Answer",
            "Announcement",
        ),
    },
    "FastStream": {"bus.integrations.faststream": ("attach", "application")},
    "Testing": {
        "bus.testing.buses": ("MemoryBuses",),
        "bus.testing.sync_buses": ("SyncMemoryBuses",),
        "bus.testing.settled": ("Unsettled",),
        "bus.testing.messages": ("FoundMessages", "SentMessage", "DeadMessage"),
        "bus.testing.handling": ("HandlerCall",),
        "bus.testing.rabbitmq": ("RabbitMQ",),
        "bus.testing.dependencies": ("override_dependency",),
        "bus.contracts.sensitive": ("shown_values",),
        "bus.transports.memory.broker": ("MemoryBroker",),
        "bus.transports.memory.transport": ("MemoryTransport",),
        "bus.transports.memory.virtual_time": ("VirtualLoop", "wall_clock"),
    },
    "Logging": {"bus.operations.logging": ("MessageContextFilter", "configure_logging")},
    "Messages": {"bus.messaging.envelope": ("Envelope", "Progress")},
    "Dead letters": {
        "bus.operations.dead_letters.selection": (
            "DeadLetter",
            "Selection",
            "EVERYTHING",
            "ObservedValues",
        ),
        "bus.messaging.fault_record": ("FaultRecord",),
        "bus.operations.dead_letters.reports": ("ReplayReport", "PurgeReport"),
    },
    "Policies": {
        "bus.messaging.handler": ("Handler", "Middleware", "compose"),
        "bus.middleware.stacks": ("CLIENT", "SERVER", "client_stack", "server_stack"),
    },
    "Ports for transports and stores": {
        "bus.messaging.ports.inbox": ("Inbox", "MessageKey", "HandledMessage"),
        "bus.storage.memory.inbox": ("MemoryInbox",),
        "bus.messaging.ports.transport": (
            "Transport",
            "ConsumerHandle",
            "Delivery",
            "ReturnListener",
            "Accepted",
            "Returned",
            "Nacked",
        ),
    },
}
INNER = {
    *(
        "Bus.__aexit__",
        "JobHandle.__init__",
        "JobHandle.end",
        "JobHandle.take",
        "Router.__call__",
        "Router.has_lifespan",
        "Router.lifespan",
        "Router.opened",
        "Router.topology",
        "MemoryBuses.__aexit__",
    ),
    *("ObservedValues.note", "ObservedValues.add"),
    *("FoundMessages.__init__", "HandlerCall.__init__", "SentMessage.note", "DeadMessage.note"),
    *(
        "MemoryBuses.__aenter__",
        "MemoryBroker.connect",
        "MemoryBroker.declare",
        "MemoryBroker.publish",
        "MemoryBroker.supervise",
        "MemoryBroker.swallows_confirm",
    ),
    *(
        "MemoryBroker.closed",
        "MemoryTransport.start",
        "MemoryTransport.declare",
        "MemoryTransport.depth",
        "MemoryTransport.send",
        "MemoryTransport.consume",
    ),
    *(
        "MemoryBroker.unblocked",
        "MemoryBroker.blocked",
        "MemoryTransport.connection",
        "MemoryTransport.close",
    ),
    *("VirtualLoop.time", "VirtualLoop.run_in_executor", "VirtualLoop.shutdown_default_executor"),
}
"""Methods that the page omits: they are internal, or the page describes them at their port."""

SAID_ELSEWHERE = {
    "Bus.request": ("bus.runtime.client", "Client.request"),
    "Bus.publish": ("bus.runtime.client", "Client.publish"),
    "Bus.submit": ("bus.runtime.client", "Client.submit"),
}
"""Methods that only delegate, each with the module and method whose docstring the page shows."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
INHERITED, INHERITED_MODULE = "CallValues", "bus.settings.service_defaults"
"""A class that is not public. The page shows its fields at the classes that inherit them."""


def page() -> str:
    """Return the whole page."""
    parts = (part for title, names in SECTIONS.items() for part in section(title, names))
    return "\n\n".join([PREFACE, *filter(None, parts)]) + "\n"


def section(title: str, names: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Yield a heading and the text below it."""
    yield f"## {title}"
    for module, wanted in names.items():
        known = definitions(source(module))
        for name in wanted:
            yield from described(name, module, *known[name])


def definitions(path: Path) -> dict[str, tuple[ast.stmt, str]]:
    """Return the top-level definitions of a module, each with its docstring."""
    return {
        name: (node, said)
        for name, node, said in with_docs(ast.parse(path.read_text(encoding="utf-8")).body)
    }


def said_of(module: str, path: str) -> str:
    """Return the docstring of a function or method; `path` is `name` or `Class.method`."""
    owner, _, member = path.partition(".")
    node, said = definitions(source(module))[owner]
    if not member or not isinstance(node, ast.ClassDef):
        return said
    return next(text for name, _, text in with_docs(node.body) if name == member)


def source(module: str) -> Path:
    """Return the path of a module's source."""
    return ROOT / f"{module.replace('.', '/')}.py"


def with_docs(body: list[ast.stmt]) -> Iterator[tuple[str, ast.stmt, str]]:
    """Yield the name, node and docstring of each definition.

    The docstring of a variable is the string below the variable.
    """
    for node, below in zip(body, [*body[1:], ast.Pass()], strict=True):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.name, node, ast.get_docstring(node) or ""
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                text = below.value if isinstance(below, ast.Expr) else None
                said = (
                    text.value
                    if isinstance(text, ast.Constant) and isinstance(text.value, str)
                    else ""
                )
                yield name, node, textwrap.dedent(said).strip()


def described(name: str, module: str, node: ast.stmt, said: str) -> Iterator[str]:
    """Yield the parts of the page that describe a public name: heading, import, text."""
    yield f"### {name}"
    if isinstance(node, ast.ClassDef):
        yield from class_described(name, module, node, said)
    elif isinstance(node, Function):
        yield fence(
            f"from {home(name, module)} import {name}", "", signature(name, node, constants(module))
        )
        yield prose(said)
    else:
        yield fence(f"from {home(name, module)} import {name}", "", *alias_lines(node))
        yield prose(said)


def alias_lines(node: ast.stmt) -> Iterator[str]:
    """Yield an assignment. A union that is too long has one line for each of its members."""
    line = double_quoted(node)
    if len(line) <= WIDTH or not isinstance(node, ast.Assign):
        yield line
        return
    yield f"{ast.unparse(node.targets[0])} = ("
    first, *others = members_of(node.value)
    yield f"    {first}"
    for each in others:
        yield f"    | {each}"
    yield ")"


def double_quoted(node: ast.AST) -> str:
    """Return the source of a node with the quotes of the project, which `ast` does not keep."""
    return ast.unparse(node).replace("'", '"')


def members_of(union: ast.expr) -> list[str]:
    """Return the members of a union as texts, or one text for another expression."""
    if isinstance(union, ast.BinOp) and isinstance(union.op, ast.BitOr):
        return [*members_of(union.left), *members_of(union.right)]
    return [ast.unparse(union)]


def home(name: str, module: str) -> str:
    """Return the module from which users import the name."""
    return next((each for each in ("bus", "bus.testing") if name in exported(each)), module)


@cache
def exported(module: str) -> tuple[str, ...]:
    """Return the names that a module exports.

    The names of `bus` are the imports in its stub. The names of other modules are in `__all__`.
    """
    if module == "bus":
        stub = ast.parse((ROOT / "bus/__init__.pyi").read_text(encoding="utf-8"))
        return tuple(
            each.name
            for node in stub.body
            if isinstance(node, ast.ImportFrom)
            for each in node.names
        )
    path = (
        source(module)
        if source(module).exists()
        else source(module).with_suffix("") / "__init__.py"
    )
    node, _ = definitions(path)["__all__"]
    return tuple(ast.literal_eval(node.value)) if isinstance(node, ast.Assign) else ()


@cache
def constants(module: str) -> Mapping[str, ast.expr]:
    """Return the constants of a module by name.

    A signature shows the value of a constant instead of its name.
    """
    named = {
        name: node.value
        for name, (node, _) in definitions(source(module)).items()
        if isinstance(node, ast.Assign)
    }
    return {name: value for name, value in named.items() if isinstance(value, ast.Constant)}


def class_described(name: str, module: str, node: ast.ClassDef, said: str) -> Iterator[str]:
    """Yield the parts of the page that describe a class: constructor, fields and methods."""
    known = constants(module)
    members = [
        (member, each, text)
        for member, each, text in with_docs(node.body)
        if f"{name}.{member}" not in INNER and not is_overload(each)
    ]
    made = next(
        (
            each
            for member, each, _ in members
            if member == "__init__" and isinstance(each, Function)
        ),
        None,
    )
    bases = ", ".join(ast.unparse(base) for base in node.bases if ast.unparse(base) != INHERITED)
    head = (
        signature(name, made, known)
        if made
        else f"class {name}({bases})"
        if bases
        else f"class {name}"
    )
    yield fence(f"from {home(name, module)} import {name}", "", head)
    yield prose(said)
    if made:
        yield prose(ast.get_docstring(made) or "")
    fields = [
        (member, each, text) for member, each, text in members if isinstance(each, ast.AnnAssign)
    ]
    if any(ast.unparse(base) == INHERITED for base in node.bases):
        inherited, _ = definitions(source(INHERITED_MODULE))[INHERITED]
        fields += [
            (member, each, text)
            for member, each, text in with_docs(getattr(inherited, "body", []))
            if isinstance(each, ast.AnnAssign)
        ]
    if fields:
        yield table(fields)
    for member, each, text in members:
        if isinstance(each, Function) and (
            not member.startswith("_") or member in ("__aenter__", "__call__")
        ):
            yield from method(name, member, each, text, known)


def is_overload(node: ast.stmt) -> bool:
    """Return True for a variant of a signature. The page shows only the function itself."""
    return isinstance(node, Function) and any(
        ast.unparse(decorator) == "overload" for decorator in node.decorator_list
    )


def method(
    name: str, member: str, node: Function, said: str, known: Mapping[str, ast.expr]
) -> Iterator[str]:
    """Yield the parts of the page that describe a method or property."""
    if member == "__aenter__":
        yield f"#### async with {name}"
        yield prose(said)
        return
    yield f"#### {name}.{member}"
    if any(ast.unparse(decorator) == "property" for decorator in node.decorator_list):
        yield fence(f"{member}: {ast.unparse(node.returns)}" if node.returns else member)
    else:
        yield fence(signature(member, node, known))
    elsewhere = SAID_ELSEWHERE.get(f"{name}.{member}")
    yield prose(said_of(*elsewhere) if elsewhere else said)


def table(fields: list[tuple[str, ast.AnnAssign, str]]) -> str:
    """Return a table of fields with their types, defaults and meanings."""
    rows = ["| field | type | default | |", "|---|---|---|---|"]
    for name, node, said in fields:
        default = ast.unparse(node.value) if node.value else ""
        kind = double_quoted(node.annotation).replace("|", "\\|")
        meaning = " ".join(said.split()).replace("|", "\\|")
        rows.append(f"| `{name}` | `{kind}` | {f'`{default}`' if default else ''} | {meaning} |")
    return "\n".join(rows)


def signature(name: str, node: Function, known: Mapping[str, ast.expr]) -> str:
    """Return the signature of a function without `self`, on one line if it fits."""
    before, after = kind(node)
    taken = list(parameters(node.args, known))
    line = f"{before}{name}({', '.join(taken)}){after}"
    return (
        line
        if len(line) <= WIDTH
        else "\n".join([f"{before}{name}(", *(f"    {each}," for each in taken), f"){after}"])
    )


def kind(node: Function) -> tuple[str, str]:
    """Return the text before a function's name and the text after its parameters."""
    decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
    if node.name == "__init__":
        return "class ", ""
    if "asynccontextmanager" in decorators:
        return "async with ", ""
    if "contextmanager" in decorators:
        return "with ", ""
    answer = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return ("async def " if isinstance(node, ast.AsyncFunctionDef) else "def "), answer


def parameters(taken: ast.arguments, known: Mapping[str, ast.expr]) -> Iterator[str]:
    """Yield each parameter with its type and default.

    `*args` is not supported, because no public function has it.
    """
    plain = [*taken.posonlyargs, *taken.args]
    defaults = [None] * (len(plain) - len(taken.defaults)) + [*taken.defaults]
    yield from (
        parameter(each, default, known)
        for each, default in zip(plain, defaults, strict=True)
        if each.arg not in {"self", "cls"}
    )
    if taken.kwonlyargs:
        yield "*"
    yield from (
        parameter(each, default, known)
        for each, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True)
    )
    if taken.kwarg:
        yield f"**{ast.unparse(taken.kwarg)}"


def parameter(argument: ast.arg, default: ast.expr | None, known: Mapping[str, ast.expr]) -> str:
    """Return one parameter with its type and default."""
    if isinstance(default, ast.Name):
        default = known.get(default.id, default)
    return ast.unparse(argument) + (f" = {ast.unparse(default)}" if default else "")


def fence(*lines: str) -> str:
    """Return a block of Python code."""
    return "\n".join(["```python", *lines, "```"])


def prose(docstring: str) -> str:
    """Return a docstring as Markdown, with interpreter sessions as code blocks."""
    parts: list[str] = []
    for paragraph in docstring.split("\n\n"):
        lines = paragraph.splitlines()
        if lines and lines[0].startswith((">>>", "    ")):
            parts.append(fence(*(line.removeprefix(">>> ").removeprefix("... ") for line in lines)))
        elif lines and lines[0] in {"Args:", "Raises:", "Attributes:"}:
            parts.append(f"*{lines[0].removesuffix(':')}*\n\n{items(lines[1:])}")
        elif lines and lines[0] in {"Returns:", "Yields:"}:
            described = " ".join(line.strip() for line in lines[1:])
            parts.append(f"*{lines[0].removesuffix(':')}*\n\n- {described}")
        else:
            parts.append(paragraph)
    return "\n\n".join(parts)


def items(lines: list[str]) -> str:
    """Return the entries of a docstring section as a Markdown list."""
    entries: list[str] = []
    for line in textwrap.dedent("\n".join(lines)).splitlines():
        if line.startswith(" ") and entries:
            entries[-1] += f" {line.strip()}"
        else:
            entries.append(line)
    return "\n".join("- " + re.sub(r"^(\*{0,2}\w[\w.]*):", r"`\1`:", each) for each in entries)


if __name__ == "__main__":
    print(page(), end="")
