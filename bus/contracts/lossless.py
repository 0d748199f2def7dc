"""Check that a contract's values survive JSON: decoded, they are the values that were encoded.

The check walks over the fields, and refuses the types that are known to lose values. A type that
the walk cannot judge is encoded and decoded with a sample, such as a type with a serializer of the
user. ADR 0022 has the reasons.
"""

from collections.abc import Callable
from enum import Enum
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn
from weakref import WeakSet

from pydantic import BaseModel

from bus.contracts.core_schema import (
    DICTIONARIES,
    FUNCTIONS,
    OBJECTS,
    CoreSchema,
    Definitions,
    definitions_of,
    fields_in,
    forms_of,
    is_from_pydantic,
    resolve,
)
from bus.contracts.lossless_fields import losses_in, serialized_fields
from bus.contracts.lossless_parts import is_scalar, lost_branch, lost_by_settings, lost_key
from bus.contracts.round_trip import RoundTrip, differs
from bus.errors import ContractError

__all__ = ["check_lossless"]

NOT_IN_JSON = {
    "is-instance": "holds objects of a class that pydantic cannot decode from JSON",
    "is-subclass": "holds classes, which JSON cannot express",
    "callable": "holds functions, which JSON cannot express",
}
NOT_INVERSE = (
    "does not arrive as it was sent: its validators do not turn its encoding back into the value. "
    "Write a serializer and a validator that are inverse."
)
PLAIN = frozenset({"str", "int", "float", "bool", "decimal", "uuid", "any", "none", "url"})
"""Kinds of types without a rule and without other types in them."""

_checked: WeakSet[type] = WeakSet()
"""Models that passed the check."""


def check_lossless(model: type[BaseModel], subject: str, suffix: str = "") -> None:
    """Check that the values of a message survive JSON, as far as the message's types tell.

    Args:
        model: Complete class of a message.
        subject: Type of the contract, for the error message.
        suffix: Text after the name of the field, such as the name of the reply's class.

    Raises:
        ContractError: A value of a field would be lost or altered. The error names the field.
    """
    if model in _checked:
        return
    schema, definitions = definitions_of(model)
    walk = _Walk(subject, suffix, definitions)
    walk.visit(schema, _Place())
    _checked.update(walk.passed)


class _Place(NamedTuple):
    """Position of the walk: the path of a field, and the circumstances of its type."""

    path: str = ""
    config: CoreSchema = MappingProxyType({})
    """Configuration of the class that contains the field."""
    is_converted: bool = False
    """True if a function of the user converts the value, so that the type alone tells little."""

    def at(self, name: str) -> "_Place":
        path = f"{self.path}.{name}" if self.path else name
        return _Place(path, self.config)


class _Walk:
    """Walk over the types of one message."""

    def __init__(self, subject: str, suffix: str, definitions: Definitions) -> None:
        self._subject = subject
        self._suffix = suffix
        self._definitions = definitions
        self._entered: set[str] = set()
        self.passed: list[type] = []
        """Models whose fields have no problem."""

    def visit(self, schema: CoreSchema, place: _Place) -> None:
        """Check one type, and the types inside it."""
        if schema["type"] in PLAIN and "serialization" not in schema:
            return
        if schema["type"] == "definition-ref":
            reference = schema["schema_ref"]
            if reference in self._entered and "serialization" not in schema:
                return
            self._entered.add(reference)
        if self._has_own_serializer(schema, place):
            return
        schema = resolve(schema, self._definitions)
        rule = RULES.get(schema["type"], _Walk.visit_inside)
        rule(self, schema, place)

    def visit_inside(self, schema: CoreSchema, place: _Place) -> None:
        for each in forms_of(schema):
            self.visit(each, place)

    def _has_own_serializer(self, schema: CoreSchema, place: _Place) -> bool:
        """Return True if a serializer replaces the encoding of the type. Check such a type."""
        serialization = schema.get("serialization", {})
        kind = serialization.get("type")
        if kind not in {"function-plain", "function-wrap", "format", "to-string"}:
            return False
        function = serialization.get("function")
        if function is None or not is_from_pydantic(function):
            # `_try_fields` checks the serializers that are methods of a class.
            if not serialization.get("is_field_serializer", False):
                self._try(schema, place)
                self._try_rich(schema, place)
            return True
        if getattr(function, "__name__", "").startswith("_serialize_secret"):
            self._refuse(
                place,
                "is a secret of pydantic, which is sent as asterisks. Write Sensitive[…], whose "
                "values are sent, and are hidden only in the repr of a message.",
            )
        is_plain: bool = kind == "function-plain"
        return is_plain

    def visit_class(self, schema: CoreSchema, place: _Place) -> None:
        is_model = schema["type"] == "model"
        if is_model and schema["cls"] in _checked:
            return
        inner = resolve(schema["schema"], self._definitions)
        inside = _Place(place.path, schema.get("config", place.config))
        if inner["type"] in FUNCTIONS and not is_from_pydantic(inner["function"]):
            # The function is only complete together with its class.
            self._try(schema, place)
            inner = inner.get("schema", inner)
        self.visit(inner, inside)
        if inner["type"] in OBJECTS:
            self._try_fields(schema, inner, inside)
        # Only a model has a configuration that does not depend on the class that contains it.
        if is_model:
            self.passed.append(schema["cls"])

    def visit_object(self, schema: CoreSchema, place: _Place) -> None:
        config = schema.get("config")  # a typed dictionary can have its own
        place = place if config is None else place._replace(config=config)
        for name, text in losses_in(schema, place.config, self._definitions):
            self._refuse(place.at(name), text)
        for name, each in fields_in(schema):
            if each["schema"]["type"] not in PLAIN or "serialization" in each["schema"]:
                self.visit(each["schema"], place.at(name))
        if "extras_schema" in schema:
            self.visit(schema["extras_schema"], place.at("*"))

    def visit_union(self, schema: CoreSchema, place: _Place) -> None:
        self.visit_inside(schema, place)
        lost = None if place.is_converted else lost_branch(schema, self._definitions, place.config)
        if lost is not None:
            self._refuse(
                place,
                f"is a union, in which `{lost}` arrives as another type, because both look the "
                f'same in JSON. Write one type, a discriminator, or union_mode="left_to_right" '
                f"with the narrowest type first.",
            )

    def visit_dictionary(self, schema: CoreSchema, place: _Place) -> None:
        if "values_schema" in schema:
            self.visit(schema["values_schema"], place)
        lost = None if place.is_converted else lost_key(schema, self._definitions, place.config)
        if lost is not None:
            self._refuse(
                place,
                f"has keys of the type {lost}, which do not survive JSON, because JSON writes keys "
                f"as text. Write keys of the type str, or a list of pairs.",
            )

    def visit_enum(self, schema: CoreSchema, place: _Place) -> None:
        members = schema["members"]
        if not all(is_scalar(each.value) for each in members):
            self._try_values(schema, place, members, "an Enum")

    def visit_literal(self, schema: CoreSchema, place: _Place) -> None:
        expected = schema["expected"]
        if any(isinstance(each, Enum) or not is_scalar(each) for each in expected):
            self._try_values(schema, place, expected, "a Literal")

    def visit_bytes(self, _schema: CoreSchema, place: _Place) -> None:
        written = place.config.get("ser_json_bytes", "utf8")
        read = place.config.get("val_json_bytes", "utf8")
        if written != read and not place.is_converted:
            self._refuse(
                place,
                f"holds bytes, which are sent as {written} and read as {read}. "
                f'Write ser_json_bytes="{written}" and val_json_bytes="{written}" in the '
                f"configuration.",
            )

    def visit_temporal(self, schema: CoreSchema, place: _Place) -> None:
        text = None if place.is_converted else lost_by_settings(schema, place.config)
        if text is not None:
            self._refuse(place, text)

    def visit_json(self, schema: CoreSchema, place: _Place) -> None:
        if not place.is_converted:
            self._refuse(
                place,
                "is a Json[…], which is sent as a value, but receivers require a text of JSON. "
                "Write the type inside Json[…].",
            )
        self.visit_inside(schema, place)

    def visit_chain(self, schema: CoreSchema, place: _Place) -> None:
        # The later steps check what the first step has decoded.
        self.visit_inside(schema, place._replace(is_converted=True))

    def visit_not_in_json(self, schema: CoreSchema, place: _Place) -> None:
        if not place.is_converted:
            self._refuse(
                place,
                f"{NOT_IN_JSON[schema['type']]}. Write a type with a validator and a serializer, "
                f"or a PrivateAttr.",
            )

    def visit_function(self, schema: CoreSchema, place: _Place) -> None:
        is_after = schema["type"] == "function-after"
        if schema["type"] != "function-plain":
            is_same = is_after or self._keeps_keys(schema)
            inside = place if is_same else place._replace(is_converted=True)
            self.visit_inside(schema, inside)
        # A validator that runs after a whole model checks the model, and seldom alters it.
        if not is_from_pydantic(schema["function"]) and not (is_after and self._is_class(schema)):
            self._try(schema, place)

    def _keeps_keys(self, schema: CoreSchema) -> bool:
        """Return True for a function with which pydantic only chooses the class of a dictionary."""
        inner = resolve(schema["schema"], self._definitions)
        return inner["type"] in DICTIONARIES and is_from_pydantic(schema["function"])

    def _is_class(self, schema: CoreSchema) -> bool:
        while schema["type"] in FUNCTIONS and "schema" in schema:
            schema = resolve(schema["schema"], self._definitions)
        kind: str = schema["type"]
        return kind in {"model", "dataclass"}

    def _try(self, schema: CoreSchema, place: _Place) -> None:
        """Encode and decode a sample, if the type has one.

        A second sample of an object has all its fields, with other values than the defaults. In a
        third one, each field that can be None is None.
        """
        if place.is_converted:
            return
        trip = RoundTrip(schema, self._definitions, place.config)
        samples = (trip.sample_values, trip.whole_objects, trip.objects_with_none)
        if any(trip.loses_all(sample()) for sample in samples):
            self._refuse(place, NOT_INVERSE)

    def _try_rich(self, schema: CoreSchema, place: _Place) -> None:
        """Encode and decode long texts, large numbers and unsorted lists, if they are accepted."""
        if not place.is_converted:
            trip = RoundTrip(schema, self._definitions, place.config)
            if trip.loses_rich():
                self._refuse(place, NOT_INVERSE)

    def _try_values(self, schema: CoreSchema, place: _Place, values: list[Any], kind: str) -> None:
        if not place.is_converted:
            trip = RoundTrip(schema, self._definitions, place.config)
            for value in filter(trip.loses, values):
                shown = value.name if isinstance(value, Enum) else repr(value)
                self._refuse(
                    place,
                    f"has `{shown}` in {kind}, which JSON cannot carry. Write a text, a finite "
                    f"number or None.",
                )

    def _try_fields(self, schema: CoreSchema, inner: CoreSchema, place: _Place) -> None:
        """Encode and decode an object, and compare the fields that have their own serializers."""
        names = serialized_fields(inner)
        if not names:
            return
        trip = RoundTrip(schema, self._definitions, place.config)
        objects = [(sent, trip.resent(sent)) for sent in trip.sample_objects(inner, names)]
        for name in names:
            if objects and all(
                differs(getattr(sent, name), *(getattr(each, name) for each in arrived))
                for sent, arrived in objects
            ):
                self._refuse(place.at(name), NOT_INVERSE)
            for sent in trip.rich_objects(inner, name):
                # The object can fail because of its other fields, which this sample does not judge.
                if any(differs(getattr(sent, name), getattr(e, name)) for e in trip.resent(sent)):
                    self._refuse(place.at(name), NOT_INVERSE)

    def _refuse(self, place: _Place, text: str) -> NoReturn:
        name = f"the field `{place.path}`{self._suffix}" if place.path else "the message"
        raise ContractError(f"{self._subject}: {name} {text}")


RULES: dict[str, Callable[[_Walk, CoreSchema, _Place], None]] = {
    "model": _Walk.visit_class,
    "dataclass": _Walk.visit_class,
    "union": _Walk.visit_union,
    "enum": _Walk.visit_enum,
    "literal": _Walk.visit_literal,
    "bytes": _Walk.visit_bytes,
    "json": _Walk.visit_json,
    "chain": _Walk.visit_chain,
    **dict.fromkeys(OBJECTS, _Walk.visit_object),
    **dict.fromkeys(DICTIONARIES, _Walk.visit_dictionary),
    **dict.fromkeys(FUNCTIONS, _Walk.visit_function),
    **dict.fromkeys(NOT_IN_JSON, _Walk.visit_not_in_json),
    **dict.fromkeys(("date", "time", "datetime", "timedelta"), _Walk.visit_temporal),
}
"""Rule for each kind of type; all other types have no rule, but the types in them are visited."""
