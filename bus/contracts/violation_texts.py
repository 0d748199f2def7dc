"""Texts for the rules of pydantic. A text names the rule, and never the value."""

from dataclasses import dataclass
from typing import get_args

from pydantic_core.core_schema import ErrorType

__all__ = ["GENERIC", "SENTENCES", "Sentence", "is_pydantic_rule"]

GENERIC = "violates the rule '{rule}'"
"""Text for a rule that has no text of its own."""
RULES = frozenset(get_args(ErrorType))
"""Names of pydantic's own rules.

An error message shows only these names. A user's validator can choose any name for a rule, even a
name that contains the value.
"""


@dataclass(frozen=True, slots=True)
class Sentence:
    """Text for one rule. It follows the path of a field."""

    text: str
    """Text, with `{limit}` for the declared limit if there is one."""
    limit: str = ""
    """Key of the limit in the schema. It is empty for a rule without a limit."""
    without_limit: str = ""
    """Text if the schema does not show the limit."""


def is_pydantic_rule(name: str) -> bool:
    """Return True if a rule's name is safe to show."""
    return name in RULES or name in SENTENCES


def _same(text: str, *rules: str) -> dict[str, Sentence]:
    return dict.fromkeys(rules, Sentence(text))


SENTENCES: dict[str, Sentence] = {
    **_same("is missing", "missing", "missing_argument", "missing_keyword_only_argument"),
    **_same("is missing", "missing_positional_only_argument"),
    # --- Types ---
    **_same("must be an object", "model_type", "model_attributes_type", "dataclass_type"),
    **_same("must be an object", "dataclass_exact_type", "dict_type", "mapping_type"),
    **_same("must be an object", "frozen_dict_type", "ordered_dict_type", "counter_type"),
    **_same("must be an array", "list_type", "tuple_type", "set_type", "frozen_set_type"),
    **_same("must be an array", "deque_type", "iterable_type", "named_tuple_type"),
    **_same("must be an object or an array", "arguments_type"),
    **_same("must be null", "none_required"),
    **_same("must be a string", "string_type", "string_sub_type", "bytes_type"),
    **_same("must be valid Unicode", "string_unicode"),
    **_same("must be ASCII text", "string_not_ascii"),
    **_same("must be true or false", "bool_type", "bool_parsing"),
    **_same("must be an integer", "int_type", "int_parsing"),
    **_same("must be an integer, without a fraction", "int_from_float"),
    **_same("has too many digits", "int_parsing_size"),
    **_same("must be a number", "float_type", "float_parsing"),
    **_same("must be a finite number", "finite_number"),
    **_same("must be a decimal number", "decimal_type", "decimal_parsing"),
    **_same("must be a fraction", "fraction_type", "fraction_parsing"),
    **_same("must be a complex number", "complex_type", "complex_str_parsing"),
    **_same("must be text in the declared encoding of bytes", "bytes_invalid_encoding"),
    **_same("must be text that contains JSON", "json_type"),
    **_same("must be a UUID", "uuid_type", "uuid_parsing"),
    **_same("must be a URL", "url_type", "url_parsing", "url_syntax_violation"),
    **_same("must be a date, such as 2026-01-31", "date_type", "date_parsing"),
    **_same("must be a date, such as 2026-01-31", "date_from_datetime_parsing"),
    **_same("must be a date without a time", "date_from_datetime_inexact"),
    **_same("must be a time, such as 13:45:00", "time_type", "time_parsing"),
    **_same(
        "must be a date with a time, such as 2026-01-31T13:45:00Z",
        "datetime_type",
        "datetime_parsing",
        "datetime_object_invalid",
        "datetime_from_date_parsing",
    ),
    **_same("must be a duration, such as PT30S", "time_delta_type", "time_delta_parsing"),
    # --- Limits ---
    "greater_than": Sentence("must be greater than {limit}", "gt", "is too small"),
    "greater_than_equal": Sentence("must be at least {limit}", "ge", "is too small"),
    "less_than": Sentence("must be less than {limit}", "lt", "is too large"),
    "less_than_equal": Sentence("must be at most {limit}", "le", "is too large"),
    "multiple_of": Sentence(
        "must be a multiple of {limit}", "multiple_of", "is not a permitted multiple"
    ),
    "too_short": Sentence("must have at least {limit} items", "min_length", "has too few items"),
    "too_long": Sentence("must have at most {limit} items", "max_length", "has too many items"),
    "string_too_short": Sentence(
        "must have at least {limit} characters", "min_length", "is too short"
    ),
    "string_too_long": Sentence(
        "must have at most {limit} characters", "max_length", "is too long"
    ),
    "bytes_too_short": Sentence("must have at least {limit} bytes", "min_length", "is too short"),
    "bytes_too_long": Sentence("must have at most {limit} bytes", "max_length", "is too long"),
    "string_pattern_mismatch": Sentence(
        "must match the pattern '{limit}'", "pattern", "does not match its pattern"
    ),
    "url_too_long": Sentence("must have at most {limit} characters", "max_length", "is too long"),
    **_same("must have one of the permitted URL schemes", "url_scheme"),
    "uuid_version": Sentence(
        "must be a UUID of version {limit}", "version", "must be a UUID of another version"
    ),
    "decimal_max_digits": Sentence(
        "must have at most {limit} digits", "max_digits", "has too many digits"
    ),
    "decimal_max_places": Sentence(
        "must have at most {limit} decimal places", "decimal_places", "has too many decimal places"
    ),
    **_same("has too many digits before the decimal point", "decimal_whole_digits"),
    **_same("must be in the past", "date_past", "datetime_past"),
    **_same("must be in the future", "date_future", "datetime_future"),
    **_same("must have no time zone", "timezone_naive"),
    **_same("must have a time zone", "timezone_aware"),
    **_same("must have the declared time zone", "timezone_offset"),
    # --- Structure ---
    **_same("has a key that is not a string", "invalid_key"),
    **_same("has an item that cannot be in a set", "set_item_not_hashable"),
    **_same("is nested too deeply", "recursion_loop", "recursion_depth_exceeded"),
    **_same("must not be present", "unexpected_positional_argument", "multiple_argument_values"),
    # --- Types of pydantic that raise errors with a name of their own ---
    **_same("must be an IPv4 address", "ip_v4_address"),
    **_same("must be an IPv6 address", "ip_v6_address"),
    **_same("must be an IP address", "ip_any_address"),
    **_same("must be an IP network", "ip_v4_network", "ip_v6_network", "ip_any_network"),
    **_same("must be an IP interface", "ip_v4_interface", "ip_v6_interface", "ip_any_interface"),
    **_same("must be a path", "path_type"),
    **_same("must be a number of bytes, such as 10MB", "byte_size"),
    **_same("must be a pattern of a regular expression", "pattern_type", "pattern_regex"),
}
"""Text by the name of the rule."""
