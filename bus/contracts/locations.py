"""Locations of validation errors: the path to a field, and the part of the schema that rules it.

pydantic reports a location as a tuple with names of fields, indices, keys of mappings and labels of
a union's types. A key of a mapping is a part of the payload, so it must not be shown. Only the
schema shows which part is which.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Location", "Node", "Part", "find_location"]

Node = Mapping[str, Any]
"""A node of pydantic's core schema."""
Part = int | str

HIDDEN = "[*]"
"""Text in a path for a key of a mapping, and for a part that the schema does not explain."""
KEY = "[key]"
"""Last part of a location, if the key of a mapping is invalid."""
INNER = ("schema", "lax_schema", "json_schema", "steps")
"""Keys of a node whose values describe the same location as the node."""
STRUCTURES = frozenset({"model-fields", "dataclass-args", "typed-dict"})
"""Types of nodes that have fields."""
UNIONS = frozenset({"union", "tagged-union"})


@dataclass(slots=True)
class Location:
    """A place in a payload."""

    path: str = ""
    """Path such as `lines[2].price`. It is empty for the payload itself."""
    nodes: tuple[Node, ...] = ()
    """All nodes of the schema that describe the place. They are empty if the place is unknown."""
    is_key: bool = False
    """True if the place is a key of the mapping at `path`."""
    union: str | None = None
    """Path to the outermost union around the place. None if the place is not in a union."""
    union_class: str = ""
    """Class in that union to which the place belongs. It is empty for a type without a class."""

    @property
    def field_names(self) -> set[str]:
        """Names under which a sender can write the fields of this place."""
        by_name = any(
            config.get("populate_by_name") or config.get("validate_by_name")
            for config in (node.get("config") or {} for node in self.nodes)
        )
        return {
            path[0]
            for node in self.nodes
            for name, paths, _ in _fields(node)
            for path in (paths if paths and not by_name else [(name,), *paths])
        }


def find_location(schema: object, parts: Sequence[Part]) -> Location:
    """Return the location that pydantic describes by `parts`.

    Args:
        schema: Core schema of the payload's class.
        parts: Location in a validation error.
    """
    walk = _Walk()
    location = Location(nodes=walk.expand([schema]))
    done = 0
    while done < len(parts):
        done += walk.step(location, parts[done:])
    return location


@dataclass(slots=True)
class _Walk:
    """A walk from the payload to a location."""

    definitions: dict[str, Node] = field(default_factory=dict)

    def expand(self, nodes: Sequence[object]) -> tuple[Node, ...]:
        """Return all nodes that describe the same location as `nodes`."""
        found: list[Node] = []
        waiting = [*nodes]
        while waiting:
            node = waiting.pop(0)
            if isinstance(node, list | tuple):  # the steps of a chain
                waiting.extend(node)
            if not isinstance(node, Mapping) or any(node is other for other in found):
                continue
            found.append(node)
            self.definitions.update({each["ref"]: each for each in node.get("definitions", ())})
            if node.get("type") == "definition-ref":
                waiting.append(self.definitions.get(node["schema_ref"]))
            else:
                waiting.extend(node.get(key) for key in INNER)
        return tuple(found)

    def step(self, location: Location, parts: Sequence[Part]) -> int:
        """Move the location along the first of `parts`, and return the number of parts used.

        The number is above 1 only for a field whose alias is a path.
        """
        fields = [
            (path, schema)
            for node in location.nodes
            for name, paths, schema in _fields(node)
            for path in (*paths, (name,))
            if path == tuple(map(str, parts[: len(path)]))
        ]
        if fields:
            path = max((path for path, _ in fields), key=len)
            location.path = ".".join([*filter(None, [location.path]), *path])
            location.nodes = self.expand([schema for other, schema in fields if other == path])
            return len(path)
        if not self._enter_items(location, parts[0]) and not self._enter_union(location, parts[0]):
            self._enter_mapping(location, parts)
        return 1

    def _enter_items(self, location: Location, part: Part) -> bool:
        arrays = [node["items_schema"] for node in location.nodes if "items_schema" in node]
        if not arrays or not isinstance(part, int):
            return False
        location.path += f"[{part}]"
        location.nodes = self.expand([_item(items, part) for items in arrays])
        return True

    def _enter_union(self, location: Location, label: Part) -> bool:
        """Move the location into the type of a union that has this label."""
        unions = [node for node in location.nodes if node.get("type") in UNIONS]
        if not unions:
            return False
        choices = [self.expand([choice]) for union in unions for choice in _choices(union, label)]
        labelled = [choice for choice in choices if label in _class_names(choice)]
        if location.union is None and unions[0]["type"] == "union":
            location.union = location.path
            location.union_class = str(label) if labelled else ""
        location.nodes = tuple(node for choice in labelled or choices for node in choice)
        return True

    def _enter_mapping(self, location: Location, parts: Sequence[Part]) -> None:
        """Move the location to a value or a key of a mapping, and hide the key."""
        mappings = [node for node in location.nodes if node.get("type") == "dict"]
        if location.is_key and parts[0] == KEY:
            return
        if mappings and tuple(parts[1:]) == (KEY,):
            location.is_key = True
            location.nodes = self.expand([node.get("keys_schema") for node in mappings])
        else:
            location.path += HIDDEN
            location.nodes = self.expand([node.get("values_schema") for node in mappings])


def _fields(node: Node) -> Iterator[tuple[str, list[tuple[str, ...]], Node]]:
    """Yield the name, the aliases and the node of each field. An alias is a path of keys."""
    fields = node["fields"] if node.get("type") in STRUCTURES else []
    entries = (
        [(name, entry) for name, entry in fields.items()]
        if isinstance(fields, Mapping)
        else [(entry["name"], entry) for entry in fields]
    )
    for name, entry in entries:
        yield name, _alias_paths(entry.get("validation_alias")), entry["schema"]


def _alias_paths(alias: str | list[Any] | None) -> list[tuple[str, ...]]:
    """Return the path of each alias. A name is a path of one key."""
    if alias is None:
        return []
    if isinstance(alias, str):
        return [(alias,)]
    # `AliasPath` is a list of keys, and `AliasChoices` is a list of such lists.
    paths = [alias] if isinstance(alias[0], str) else alias
    return [tuple(map(str, path)) for path in paths]


def _item(items: object, index: int) -> object:
    """Return the node of one item. The items of a tuple have a node each."""
    if not isinstance(items, list):
        return items
    return items[min(index, len(items) - 1)] if items else None


def _choices(union: Node, label: Part) -> list[object]:
    """Return the types of a union. If the union is tagged, return only the type with this tag."""
    choices = union["choices"]
    if isinstance(choices, Mapping):
        return [choice for tag, choice in choices.items() if str(tag) == str(label)] or [
            *choices.values()
        ]
    # A choice with its own label is a tuple of the node and the label.
    return [choice[0] if isinstance(choice, tuple) else choice for choice in choices]


def _class_names(nodes: Sequence[Node]) -> set[str]:
    return {node["cls"].__name__ for node in nodes if isinstance(node.get("cls"), type)}
