"""The base class of settings that are read from the environment."""

import os
from collections.abc import Collection, Container, Iterable, Mapping
from inspect import signature
from itertools import chain
from types import UnionType
from typing import Any, ClassVar, get_args

from pydantic import AliasChoices, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, EnvSettingsSource, SettingsConfigDict
from typing_extensions import override

from bus.errors import ConfigurationError
from bus.messaging.suggestions import did_you_mean
from bus.messaging.variable_values import strip_value

__all__ = ["EnvironmentSettings", "aliases_of", "semconv_opt_in"]

OPTIONS = signature(BaseSettings.__init__).parameters.keys()
"""Arguments of pydantic-settings that are not fields, such as `_env_file`."""


class EnvironmentSettings(BaseSettings):
    """Base class of settings that are read from the environment.

    Set `env_prefix` in the subclass. The environment variable of a field is the field's name in
    capitals after this prefix. If a variable has this name in other letters, such as `bus_auth`,
    `ConfigurationError` is raised: pydantic would let one of the two win.

    White space around a variable's value does not count, and an empty variable is not set. An
    argument of the constructor that is not a field raises `ConfigurationError`, unless the subclass
    sets `extra`.

    A boolean is not a number, and a number is never infinite or NaN.
    """

    # allow_inf_nan=False: every wait must end, so no setting may be infinite.
    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False
    )

    _verbatim: ClassVar[frozenset[str]] = frozenset()
    """Names of fields that keep the white space around a value. Only white space is not set."""

    def __init__(self, /, **values: Any) -> None:
        """Read the settings.

        Args:
            **values: Values by field name, which replace the values of the environment.

        Raises:
            ConfigurationError: An argument is not a field, or a variable has the name of a setting
                in other letters.
            ValidationError: A value is invalid. The class is pydantic's.
        """
        self._refuse_unknown(values)
        super().__init__(**values)

    @classmethod
    @override
    def settings_customise_sources(
        cls,
        settings_cls: type[Any],
        init_settings: Any,
        env_settings: Any,
        dotenv_settings: Any,
        file_secret_settings: Any,
    ) -> tuple[Any, ...]:
        """Check the names of variables, and return pydantic's own sources.

        Raises:
            ConfigurationError: A variable has the name of a setting, in other letters.
        """
        prefix = cls.model_config.get("env_prefix", "")
        names = [f"{prefix}{field}" for field in cls.model_fields]
        # pydantic compares in lower case, in which the Kelvin sign is a "k", too.
        right = {name.lower(): name.upper() for name in names}
        wrong = [name for name in sorted(os.environ) if right.get(name.lower(), name) != name]
        if wrong:
            raise ConfigurationError(
                "settings: "
                + "; ".join(
                    f"{shown}: the name must be in capitals. Write {capitals}, and remove {shown}"
                    for shown, capitals in ((ascii(n)[1:-1], right[n.lower()]) for n in wrong)
                )
            )
        kept = {f"{prefix}{field}".lower() for field in cls._verbatim}
        for source in (env_settings, dotenv_settings):
            if isinstance(source, EnvSettingsSource):
                source.env_vars = _strip_values(source.env_vars, kept)
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @classmethod
    def _refuse_unknown(cls, values: Iterable[str]) -> None:
        """Refuse an argument of the constructor that is not a field.

        Pydantic accepts a field's name in other letters. Of two such arguments one would win.

        Raises:
            ConfigurationError: An argument is not a field, and the class ignores such arguments.
        """
        if cls.model_config.get("extra") != EnvironmentSettings.model_config["extra"]:
            return
        known = {*cls.model_fields, *chain(*map(aliases_of, cls.model_fields.values()))}
        unknown = [name for name in values if name not in known and name not in OPTIONS]
        if unknown:
            described = " ".join(cls._describe_unknown(name, known) for name in unknown)
            raise ConfigurationError(f"settings: {described} Correct or remove the argument.")

    @classmethod
    def _describe_unknown(cls, name: str, known: Collection[str]) -> str:
        """Return a sentence about an argument, with the nearest field."""
        # A user can write the name of the variable.
        bare = name.lower().removeprefix(cls.model_config.get("env_prefix", "").lower())
        meant = f"; did you mean {bare!r}?" if bare in known else did_you_mean(bare, known)
        shown = name if name.isascii() and name.isidentifier() else ascii(name)
        return f"{shown} is not a field of {cls.__name__}{meant or '.'}"

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_boolean(cls, value: object, info: ValidationInfo) -> object:
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and _is_numeric(field.annotation):
            raise PydanticCustomError("boolean", "must be a number, not a boolean")
        return value


def semconv_opt_in() -> frozenset[str]:
    """Return the values of `OTEL_SEMCONV_STABILITY_OPT_IN`, such as `rpc/dup`.

    The variable is OpenTelemetry's. All instrumentations of a process read it.
    """
    values = os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")
    return frozenset(filter(None, map(strip_value, values)))


def aliases_of(field: FieldInfo) -> list[str]:
    """Return the other names by which a field is read."""
    validation = field.validation_alias
    choices = validation.choices if isinstance(validation, AliasChoices) else [validation]
    return [name for name in (field.alias, *choices) if isinstance(name, str)]


def _strip_values(
    variables: Mapping[str, str | None], verbatim: Container[str]
) -> dict[str, str | None]:
    """Return the variables that have a value, without white space around it.

    Docker Compose sets an omitted variable to the empty string, and a file from Windows ends its
    lines with a carriage return.

    Args:
        variables: The values by the name of the variable.
        verbatim: Names in lower case of variables that keep their white space.
    """
    stripped = {name: value and strip_value(value) for name, value in variables.items()}
    return {
        name: variables[name] if name.lower() in verbatim else value
        for name, value in stripped.items()
        if value
    }


def _is_numeric(annotation: object) -> bool:
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return not {int, float}.isdisjoint(kinds)
