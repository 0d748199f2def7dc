"""The house rules of the design's section 3, as tables and the functions that check them."""

import ast
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

# A room is a module, or a package with everything in it. Imports point down, or stay in the layer without a cycle.
LAYERS: Mapping[int, tuple[str, ...]] = {
    0: (
        "bus.errors",
        "bus.messaging.ids",
        "bus.messaging.suggestions",
        "bus.contracts.retry_policy",
        "bus.contracts.payload",
        "bus.contracts.sensitive",
        "bus.contracts.contract",
        "bus.messaging.envelope",
        "bus.messaging.topology.model",
        "bus.messaging.topology.declarations",
        "bus.messaging.topology.names",
        "bus.security.secret_files",
        "bus.settings",
    ),
    1: (
        "bus.messaging.handler",
        "bus.messaging.context",
        "bus.runtime.dependencies",
        "bus.messaging.settlement",
        "bus.messaging.timers",
        "bus.storage.memory.inbox",
        "bus.security.grants",
        "bus.security.reply_to",
        "bus.security.access_policy",
        "bus.security.encryption",
        "bus.security.jwe",
        "bus.security.keys",
        "bus.security.private_keys",
        "bus.security.keyring",
        "bus.security.key_directory",
        "bus.security.jws",
        "bus.security.tokens",
        "bus.messaging.ports.transport",
    ),
    2: ("bus.middleware",),
    3: (
        *(
            "bus.runtime.router",
            "bus.runtime.client",
            "bus.replies",
            "bus.runtime.poison_isolation",
            "bus.runtime.receiver",
            "bus.runtime.service_activator",
            "bus.runtime.endpoint_consumer",
        ),
        *("bus.runtime.settler", "bus.operations.dead_letters", "bus.transports"),
    ),
    4: (
        "bus.middleware.stacks",
        "bus.security.identity",
        "bus.runtime.security",
        "bus.runtime.security",
        "bus.runtime.bus",
        "bus.testing",
        "bus.operations.logging",
        "bus.operations.health",
        "bus.operations.brokers",
        "bus.operations.topology",
        "bus.runtime.handler_timeouts",
        "bus.integrations.faststream",
    ),
    5: ("bus.cli", "bus"),
}
# Each third-party library has one home, so that replacing it means one room.
HOMES: Mapping[str, tuple[str, ...]] = {
    "aio_pika": ("bus.transports.rabbitmq",),
    "aiormq": ("bus.transports.rabbitmq",),
    "pamqp": ("bus.transports.rabbitmq",),
    "yarl": ("bus.transports.rabbitmq",),
    "faststream": ("bus.transports.faststream",),
    "fast_depends": ("bus.runtime.dependencies",),
    "jwt": ("bus.security.keys", "bus.security.private_keys"),
    "cryptography": ("bus.security.keys", "bus.security.private_keys"),
    "nacl": ("bus.security.keys", "bus.security.private_keys"),
    "tenacity": ("bus.messaging.settlement",),
    "structlog": ("bus.middleware.logging", "bus.operations.logging"),
    "testcontainers": ("bus.operations.brokers.container",),
    "typer": ("bus.cli",),
    "rich": ("bus.cli",),
    "watchfiles": ("bus.cli",),
    "pydantic_settings": ("bus.settings",),
    "contracts": ("bus.cli.demo",),  # the demo shows the reference application, in a checkout
    "workers": ("bus.cli.demo",),
    "pydantic": ("bus",),
    "msgspec": ("bus.messaging.envelope",),
    "joserfc": ("bus.security.jwe",),
    "pydantic_core": ("bus",),
    "typing_extensions": ("bus",),
}
# The guard is a program of its own, started with an environment that is made for it.
READS_ENVIRONMENT = ("bus.settings", "bus.cli", "bus.operations.brokers.node_guard")
ENVIRONMENT = frozenset({"environ", "environb", "getenv", "getenvb"})
SAID_IN_EXPRESSIONS = ("import_module", *ENVIRONMENT)
# The reference application shows what users write: no broker's library in it.
BROKER_LIBRARIES = ("aio_pika", "aiormq", "pamqp", "faststream")
APPLICATION = {"contracts": ("workers", *BROKER_LIBRARIES), "workers": BROKER_LIBRARIES}


Imports = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name, and everything that it imports anywhere, with lines."""

    name: str
    nodes: tuple[ast.AST, ...]
    imports: Imports

    @property
    def is_middleware(self) -> bool:
        return self.name.startswith("bus.middleware.")


def violations(root: Path) -> list[str]:
    """Every breach of the rules under `root`, the directory that holds `bus`; empty when all is well."""
    found: list[str] = []
    imports: dict[str, Imports] = {}
    for module in read(root, "bus"):
        found += [breach for rule in RULES for breach in rule(module)]
        imports[module.name] = module.imports
    applied = [breach for package in APPLICATION for module in read(root, package) for breach in foreign(module, package)]
    return [*found, *cycles(imports), *applied]


def read(root: Path, package: str) -> Iterator[Module]:
    """The modules of one top-level package, with `from x import y` resolved to `x.y` where that is a module.

    One at a time: all their trees together would keep the collector of garbage busy for longer than all else takes.
    """
    paths = {dotted(root, path): path for path in sorted((root / package).rglob("*.py"))}
    for name, path in paths.items():
        nodes = every_node(path)
        yield Module(name, nodes, tuple(imported(nodes, known=paths.keys())))


def every_node(path: Path) -> tuple[ast.AST, ...]:
    """What the rules look at, walked once: statements, and expressions only where one of them can matter, since they are most of a file."""
    source = path.read_text(encoding="utf-8")
    tree = ast.parse(source)
    return tuple(ast.walk(tree) if any(name in source for name in SAID_IN_EXPRESSIONS) else statements(tree))


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    for part in ("body", "orelse", "finalbody", "handlers", "cases"):
        for node in getattr(tree, part, ()):
            yield node
            yield from statements(node)


def dotted(root: Path, path: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imported(nodes: Iterable[ast.AST], known: Collection[str]) -> Iterator[tuple[str, int]]:
    """What is imported by statement, or by `import_module` with a name that is written out."""
    for node in nodes:
        match node:
            case ast.Import(names=names):
                yield from ((each.name, node.lineno) for each in names)
            case ast.ImportFrom(module=str(module), names=names):
                whole = (f"{module}.{each.name}" for each in names)
                yield from ((each if each in known else module, node.lineno) for each in whole)
            case ast.Call(
                func=ast.Attribute(attr="import_module") | ast.Name(id="import_module"), args=[ast.Constant(value=str(name)), *_]
            ):
                yield name, node.lineno


def within(name: str, rooms: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in rooms)


def layer(name: str) -> int | None:
    """The layer of a module's room; None for a room that nobody has written into the table."""
    if name == "bus":
        return 5
    return next((number for number, rooms in LAYERS.items() if within(name, tuple(room for room in rooms if room != "bus"))), None)


def points_down(module: Module) -> Iterator[str]:
    own = layer(module.name)
    if own is None:
        yield f"{module.name}: a new room; decide its layer and add it to LAYERS in tests/layers.py"
        return
    for target, line in module.imports:
        if within(target, ("bus",)) and (other := layer(target)) is not None and other > own:
            yield f"{module.name}:{line}: imports {target}, which is up (layer {own} to {other})"


def at_home(module: Module) -> Iterator[str]:
    for target, line in module.imports:
        library = target.partition(".")[0]
        if library == "bus" or library in sys.stdlib_module_names:
            continue
        if library not in HOMES:
            yield f"{module.name}:{line}: {library} has no home; decide which and add it to HOMES in tests/layers.py"
        elif not within(module.name, HOMES[library]):
            yield f"{module.name}:{line}: {library} is at home in {', '.join(HOMES[library])} only"


def keeps_to_itself(module: Module) -> Iterator[str]:
    for target, line in module.imports:
        if module.is_middleware and target.startswith("bus.middleware.") and target != module.name:
            yield f"{module.name}:{line}: a middleware imports another ({target})"


def imports_on_top(module: Module) -> Iterator[str]:
    if not any(isinstance(node, ast.Import | ast.ImportFrom) and node.col_offset for node in module.nodes):
        return  # what is not indented is in no function, and looking into all of them takes long
    functions = (node for node in module.nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))
    inside = {node.lineno for function in functions for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)}
    yield from (f"{module.name}:{line}: an import inside a function" for line in sorted(inside))


def leaves_environment(module: Module) -> Iterator[str]:
    if within(module.name, READS_ENVIRONMENT):
        return
    for node in module.nodes:
        match node:
            case ast.Attribute(value=ast.Name(id="os"), attr=attribute) if attribute in ENVIRONMENT:
                yield f"{module.name}:{node.lineno}: reads the environment (os.{attribute}); take a mapping or a setting"
            case ast.ImportFrom(module="os", names=aliases) if ENVIRONMENT.intersection(each.name for each in aliases):
                yield f"{module.name}:{node.lineno}: reads the environment; take a mapping or a setting"


def cycles(imports: Mapping[str, Imports]) -> Iterator[str]:
    graph = {name: {target for target, _ in found if target in imports and target != name} for name, found in imports.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"an import cycle: {' <- '.join(error.args[1])}"


def foreign(module: Module, package: str) -> Iterator[str]:
    for target, line in module.imports:
        if within(target, APPLICATION[package]):
            yield f"{module.name}:{line}: {package} imports {target}"


RULES = (points_down, at_home, keeps_to_itself, imports_on_top, leaves_environment)
