"""Round trips: encode and decode a sample of a type, and compare it with the original."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

from pydantic import BaseModel
from pydantic_core import CoreConfig, SchemaSerializer, SchemaValidator

from bus.contracts.core_schema import (
    DICTIONARIES,
    FUNCTIONS,
    OBJECTS,
    CoreSchema,
    Definitions,
    accepted_names,
    fields_in,
    resolve,
)
from bus.contracts.rich_samples import rich_samples
from bus.contracts.samples import AWARE_TIME, NoSampleError, sample_json, sample_object

__all__ = ["RoundTrip", "differs", "is_hashable"]

GUESSES = ("aaaa", 1, "1")
"""JSON values to try if a validator rejects the sample of its type."""
NAIVE_TIME = AWARE_TIME.removesuffix("Z")


class RoundTrip:
    """Encoder and decoder of one core schema.

    A schema can call functions of the user. An exception of these functions never passes.
    """

    def __init__(self, schema: CoreSchema, definitions: Definitions, config: CoreSchema) -> None:
        """Compile the schema.

        Args:
            schema: Schema of a type.
            definitions: Schemas to which `schema` refers, by name.
            config: Configuration of the model that contains the type.
        """
        self._schema = schema
        self._definitions = definitions
        self._config = config
        whole: Any = _without_duplicate(schema, definitions)
        if definitions:
            listed = list(definitions.values())
            whole = {"type": "definitions", "schema": whole, "definitions": listed}
        compiled: Any = dict(config)
        options: CoreConfig = compiled
        self._validator = SchemaValidator(whole, options)
        self._serializer = SchemaSerializer(whole, options)

    def sample_values(self) -> list[Any]:
        """Return values of the type, or an empty list if no sample is accepted."""
        try:
            sample = sample_json(self._schema, self._definitions)
        except NoSampleError:
            candidates: Iterable[Any] = GUESSES
        else:
            candidates = (sample, *(guess for guess in GUESSES if guess != sample))
        for candidate in candidates:
            values = self.decode(candidate)
            if values:
                return values
        return self._sample_dictionaries()

    def _sample_dictionaries(self) -> list[Any]:
        """Return dictionaries for a type whose keys have no sample as text, or an empty list.

        The user's functions convert such a dictionary to another form, such as a list of pairs.
        """
        inner = resolve(self._schema, self._definitions)
        while inner["type"] in FUNCTIONS and "schema" in inner:
            inner = resolve(inner["schema"], self._definitions)
        if inner["type"] not in DICTIONARIES:
            return []
        keys, values = (
            RoundTrip(inner.get(part, {"type": "any"}), self._definitions, self._config)
            for part in ("keys_schema", "values_schema")
        )
        pairs = [(key, value) for key in keys.sample_values() for value in values.sample_values()]
        return [{key: value} for key, value in pairs if is_hashable(key)]

    def sample_objects(self, inner: CoreSchema, names: Iterable[str]) -> list[Any]:
        """Return objects that have values for the fields `names`, or an empty list.

        Args:
            inner: The part of the schema that has the fields.
            names: Fields, which can have defaults.
        """
        try:
            sample = sample_object(inner, self._config, self._definitions, with_fields=names)
        except NoSampleError:
            return []
        return self.decode(sample)

    def loses_rich(self) -> bool:
        """Return True if a rich sample of the type is accepted, but does not arrive as it was."""
        try:
            sample = sample_json(self._schema, self._definitions)
        except NoSampleError:
            return False
        return any(self.loses_all(self.decode(each)) for each in rich_samples(sample))

    def rich_objects(self, inner: CoreSchema, name: str) -> list[Any]:
        """Return objects in which one field has a rich sample, or an empty list.

        Args:
            inner: The part of the schema that has the fields.
            name: Field, which can have a default.
        """
        try:
            sample = sample_object(inner, self._config, self._definitions, with_fields=[name])
        except NoSampleError:
            return []
        accepted = accepted_names(name, dict(fields_in(inner))[name], self._config)
        key = next(each for each in accepted if each in sample)
        variants = ({**sample, key: each} for each in rich_samples(sample[key]))
        return [value for each in variants for value in self.decode(each)]

    def encoded_texts(self) -> list[Any]:
        """Return the samples that are a text in JSON, or a list of texts."""
        texts = []
        for value in self.sample_values():
            with suppress(Exception):
                texts.append(json.loads(self._serializer.to_json(value, by_alias=True)))
        return [each for each in texts if isinstance(each, str | list)]

    def whole_objects(self) -> list[Any]:
        """Return objects with all fields, if possible with other values than the defaults.

        The list is empty if the type is not a class with fields.
        """
        inner = self._fields_schema()
        if inner is None:
            return []
        names = [name for name, field in fields_in(inner) if field.get("init", True)]
        return self.sample_objects(inner, names)

    def objects_with_none(self) -> list[Any]:
        """Return objects whose fields are None if their types permit it, or an empty list.

        The list is also empty if the type is not a class with fields.
        """
        inner = self._fields_schema()
        if inner is None:
            return []
        try:
            sample = sample_object(inner, self._config, self._definitions)
        except NoSampleError:
            return []
        for name, field in fields_in(inner):
            schema = resolve(field["schema"], self._definitions)
            if schema["type"] == "default":
                schema = resolve(schema["schema"], self._definitions)
            accepted = accepted_names(name, field, self._config)
            if schema["type"] == "nullable" and accepted and field.get("init", True):
                sample[accepted[0]] = None
        return self.decode(sample)

    def _fields_schema(self) -> CoreSchema | None:
        """Return the part of the schema that has fields, or None."""
        inner = resolve(self._schema, self._definitions)
        while inner["type"] in FUNCTIONS | {"model", "dataclass"} and "schema" in inner:
            inner = resolve(inner["schema"], self._definitions)
        return inner if inner["type"] in OBJECTS else None

    def decode(self, sample: Any) -> list[Any]:
        """Return the values of a JSON sample, or an empty list if it is rejected.

        A sample with a time has two values: one with a time zone, and one without.
        """
        text = json.dumps(sample)
        texts = dict.fromkeys((text, text.replace(AWARE_TIME, NAIVE_TIME)))
        return [value for each in texts for value in self._decode(each)]

    def _decode(self, text: str) -> list[Any]:
        try:
            return [self._validator.validate_json(text)]
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - a user's validator can raise any error
            return []

    def loses_all(self, values: list[Any]) -> bool:
        """Return True if there are values, and none of them arrives as it was sent.

        A serializer can be for times with a time zone only, or for times without one.
        """
        return bool(values) and all(map(self.loses, values))

    def loses(self, value: Any) -> bool:
        """Return True if a value does not arrive as it was sent."""
        return differs(value, *self.resent(value))

    def resent(self, value: Any) -> list[Any]:
        """Return a list with the value that a receiver gets, or an empty list if it gets none."""
        try:
            # Receivers do not read computed fields, and their functions can fail for a sample.
            body = self._serializer.to_json(
                value, by_alias=True, exclude_computed_fields=True, warnings="error"
            )
            return [self._validator.validate_json(body)]
        except KeyboardInterrupt:
            raise
        except BaseException:  # noqa: BLE001 - a user's serializer can raise any error
            return []


def is_hashable(value: object) -> bool:
    """Return True if a value can be a key."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


def differs(sent: Any, *arrived: Any) -> bool:
    """Return True if the value that arrived is known to be another value.

    Args:
        sent: Original value.
        *arrived: The value that arrived, or nothing.
    """
    if not arrived:
        return True
    try:
        return not _is_same(sent, arrived[0])
    except Exception:  # noqa: BLE001 - such as an array, whose comparison is not a boolean
        return False


def _is_same(sent: Any, arrived: Any) -> bool:
    if sent == arrived:
        return True
    if type(sent) is not type(arrived) or isinstance(sent, Enum):
        return False
    parts, others = _parts_of(sent), _parts_of(arrived)
    if parts is not None and others is not None:
        return parts.keys() == others.keys() and all(
            _is_same(parts[key], others[key]) for key in parts
        )
    # A class that does not define equality gives no information.
    return "__eq__" not in {name for cls in type(sent).__mro__[:-1] for name in vars(cls)}


def _parts_of(value: Any) -> dict[Any, Any] | None:
    """Return the parts of a container by key, or None for a value without parts."""
    if isinstance(value, BaseModel):
        return {**value.__dict__, **(value.__pydantic_extra__ or {})}
    if is_dataclass(value):
        return {each.name: getattr(value, each.name) for each in fields(value)}
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    # By position, because a key whose class defines no equality is never found again.
    return dict(enumerate(value.items())) if isinstance(value, Mapping) else None


def _without_duplicate(schema: CoreSchema, definitions: Definitions) -> CoreSchema:
    """Return a reference to the schema if it is one of the definitions, which must be unique."""
    if schema.get("ref") in definitions:
        return {"type": "definition-ref", "schema_ref": schema["ref"]}
    return schema
