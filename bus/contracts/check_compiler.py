"""The compiler of the checks of a message class, from the core schema of pydantic."""

from collections.abc import Callable

from pydantic import BaseModel

from bus.contracts.any_checks import check_any, check_any_keys, check_secret
from bus.contracts.core_schema import (
    DICTIONARIES,
    OBJECTS,
    SEQUENCES,
    CoreSchema,
    choices_of,
    definitions_of,
    fields_in,
    forms_of,
    is_from_pydantic,
    resolve,
)
from bus.contracts.iterators import iterator_fields
from bus.contracts.value_checks import (
    Check,
    check_all,
    check_branches,
    check_elements,
    check_fields,
    check_instance,
    check_keys,
    check_number,
    check_number_keys,
    check_positions,
    check_values,
)

__all__ = ["EACH_BODY", "CheckCompiler"]


class CheckCompiler:
    """Compiler of the checks of one message class. Types that lose no values have no check."""

    def __init__(self, model: type[BaseModel], *, is_in_any: bool = False) -> None:
        self._is_in_any = is_in_any
        """True if no contract declares the class, so that its types were not checked."""
        self._schema, self._definitions = definitions_of(model)
        self._checks: dict[str, list[Check | None]] = {}
        """Checks by reference. The list is empty while the check of the reference is compiled."""
        self.tokens: set[bytes] = set()
        self.classes: dict[type, None] = {}
        self.generators = 0
        """Number of types `Iterable[…]`."""
        self.is_unbounded = False
        """True if the values can be nested without a limit."""

    def compile_whole(self) -> Check | None:
        """Return the check of an object of the class, or None."""
        schema = resolve(self._schema, self._definitions)
        while schema["type"] not in {"model", "dataclass"}:
            if _is_opaque(schema):
                return None
            schema = resolve(forms_of(schema)[0], self._definitions)
        return None if _is_opaque(schema) else self._compile_content(schema)

    def compile_message(self) -> tuple[Check | None, tuple[str, ...]]:
        """Return the check of the fields of the message, and the fields that are iterators."""
        schema = resolve(self._schema, self._definitions)
        while schema["type"] != "model":
            schema = resolve(forms_of(schema)[0], self._definitions)
        # The object itself can be of a subclass, whose fields are left out on purpose.
        if _is_opaque(schema):
            return None, ()
        fields = resolve(schema["schema"], self._definitions)
        while fields["type"] not in OBJECTS and forms_of(fields):
            fields = resolve(forms_of(fields)[0], self._definitions)
        iterators = iterator_fields(fields, self._definitions) if fields["type"] in OBJECTS else ()
        return self.compile(schema["schema"], schema), iterators

    def compile(self, schema: CoreSchema, owner: CoreSchema) -> Check | None:
        """Return the check of a type, or None.

        Args:
            schema: Core schema of the type.
            owner: Core schema of the class that contains the type.
        """
        if schema["type"] == "definition-ref":
            return self._compile_reference(schema, owner)
        if _is_opaque(schema):
            return check_secret if self._is_in_any and _is_secret(schema) else None
        if schema.get("serialization", {}).get("type") == "any":
            return self.compile_any(schema, owner)
        self.generators += schema["type"] == "generator"
        return RULES.get(schema["type"], CheckCompiler.compile_inside)(self, schema, owner)

    def compile_inside(self, schema: CoreSchema, owner: CoreSchema) -> Check | None:
        """Return the check of a type that only wraps another type."""
        inner = forms_of(schema)
        return self.compile(inner[0], owner) if inner else None

    def _compile_reference(self, schema: CoreSchema, owner: CoreSchema) -> Check | None:
        if schema.get("serialization", {}).get("type") == "any":
            return self.compile_any(schema, owner)
        reference = schema["schema_ref"]
        known = self._checks.get(reference)
        if known is None:
            known = self._checks[reference] = []
            known.append(self.compile(self._definitions[reference], owner))
        if known:
            return known[0]
        self.is_unbounded = True  # the class contains itself
        return lambda value: known[0](value) if known[0] is not None else None

    def compile_float(self, schema: CoreSchema, owner: CoreSchema) -> Check | None:
        """Return the check of a float, unless the class sends NaN as a text and accepts it."""
        config = owner.get("config", {})
        mode = config.get("ser_json_inf_nan", "null")
        accepts_nan = schema.get("allow_inf_nan", config.get("allow_inf_nan", True))
        if mode == "strings" and accepts_nan and not self._is_in_any:
            return None
        self.tokens.update({b"null"} if mode == "null" else {b"NaN", b"Infinity"})
        return check_number

    def compile_decimal(self, schema: CoreSchema, owner: CoreSchema) -> Check | None:
        """Return the check of a decimal, unless the class accepts NaN and infinity."""
        config = owner.get("config", {})
        accepts_nan = schema.get("allow_inf_nan", config.get("allow_inf_nan", False))
        if accepts_nan and not self._is_in_any:
            return None
        self.tokens.update({b"NaN", b"Infinity"})
        return check_number

    def compile_any(self, _schema: CoreSchema, _owner: CoreSchema) -> Check:
        """Return the check of a value of any type, which pydantic encodes by the value's class."""
        self.tokens.add(EACH_BODY)
        self.is_unbounded = True
        return check_any

    def compile_elements(self, schema: CoreSchema, owner: CoreSchema) -> Check | None:
        """Return the check of a list or set."""
        check = self.compile(schema.get("items_schema", ANY), owner)
        return None if check is None else check_elements(check)

    def compile_positions(self, schema: CoreSchema, owner: CoreSchema) -> Check | None:
        """Return the check of a tuple, whose elements have different types."""
        checks = [self.compile(each, owner) for each in forms_of(schema)]
        if schema.get("variadic_item_index") == 0 and len(checks) == 1:
            return None if checks[0] is None else check_elements(checks[0])
        return check_positions(checks) if any(checks) else None

    def compile_values(self, schema: CoreSchema, owner: CoreSchema) -> Check | None:
        """Return the check of the keys and the values of a dictionary."""
        checks: list[Check] = []
        key = resolve(schema.get("keys_schema", ANY), self._definitions)
        if key["type"] == "any" or self._is_in_any:
            self.tokens.add(EACH_BODY)
            checks.append(check_any_keys)
        elif key["type"] in {"float", "decimal"} and self.compile(key, owner) is not None:
            self.tokens.update(NOT_FINITE_KEYS)
            checks.append(check_number_keys)
        check = self.compile(schema.get("values_schema", ANY), owner)
        if check is not None:
            checks.append(check_values(check))
        return check_all(checks) if checks else None

    def compile_object(self, schema: CoreSchema, owner: CoreSchema) -> Check | None:
        """Return the check of the fields of an object."""
        checks = {
            name: self.compile(each["schema"], owner)
            for name, each in fields_in(schema)
            if not each.get("serialization_exclude", False)
        }
        own = {name: check for name, check in checks.items() if check is not None}
        if (
            schema.get("extra_behavior") or owner.get("config", {}).get("extra_fields_behavior")
        ) == "allow":
            own["__pydantic_extra__"] = self.compile_any(schema, owner)
        if not own:
            return None
        return check_keys(own) if schema["type"] == "typed-dict" else check_fields(own)

    def compile_class(self, schema: CoreSchema, owner: CoreSchema) -> Check:
        """Return the check of an object of a class, which must not be of a larger subclass."""
        if schema.get("config", {}).get("polymorphic_serialization", False):
            return self.compile_any(schema, owner)  # pydantic encodes all fields of a subclass
        self.classes[schema["cls"]] = None
        return check_instance(schema["cls"], self._compile_content(schema))

    def _compile_content(self, schema: CoreSchema) -> Check | None:
        """Return the check of the fields of a class."""
        inner = self.compile(schema["schema"], schema)
        is_root = schema.get("root_model", False)
        return check_fields({"root": inner}) if is_root and inner is not None else inner

    def compile_union(self, schema: CoreSchema, owner: CoreSchema) -> Check | None:
        """Return the check of a union. pydantic prefers the branch with the exact class."""
        branches = choices_of(schema)
        checks = [self.compile(each, owner) for each in branches]
        by_class = {
            branch["cls"]: check
            for branch, check in (
                (resolve(branch, self._definitions), check)
                for branch, check in zip(branches, checks, strict=True)
            )
            if "cls" in branch
        }
        own = [check for check in checks if check is not None]
        return check_branches(by_class, own) if own else None


ANY: CoreSchema = {"type": "any"}
EACH_BODY = b"{"
"""Token of a type whose values are always checked, because a loss leaves no trace in the JSON."""
NOT_FINITE_KEYS = (b'nan":', b'inf":', b'NaN":', b'Infinity":')
RULES: dict[str, Callable[[CheckCompiler, CoreSchema, CoreSchema], Check | None]] = {
    "any": CheckCompiler.compile_any,
    "function-plain": CheckCompiler.compile_any,
    "chain": CheckCompiler.compile_any,
    "float": CheckCompiler.compile_float,
    "decimal": CheckCompiler.compile_decimal,
    "tuple": CheckCompiler.compile_positions,
    "named-tuple": CheckCompiler.compile_positions,
    "arguments": CheckCompiler.compile_positions,
    "model": CheckCompiler.compile_class,
    "dataclass": CheckCompiler.compile_class,
    "union": CheckCompiler.compile_union,
    "tagged-union": CheckCompiler.compile_union,
    **dict.fromkeys(SEQUENCES, CheckCompiler.compile_elements),
    **dict.fromkeys(DICTIONARIES, CheckCompiler.compile_values),
    **dict.fromkeys(OBJECTS, CheckCompiler.compile_object),
}
"""Compiler of each kind of type; a kind without a compiler wraps another type, or has no check."""


def _is_opaque(schema: CoreSchema) -> bool:
    """Return True if a serializer of the user encodes the type."""
    serialization = schema.get("serialization", {})
    kind = serialization.get("type")
    if kind in {"function-plain", "format", "to-string"}:
        return True
    return kind == "function-wrap" and not is_from_pydantic(serialization["function"])


def _is_secret(schema: CoreSchema) -> bool:
    """Return True for a secret of pydantic, which pydantic itself encodes as asterisks."""
    function = schema["serialization"].get("function")
    return getattr(function, "__name__", "").startswith("_serialize_secret")
