"""The base class of settings that are read from the environment."""

import os
from types import UnionType
from typing import Any, get_args

from pydantic import ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict
from typing_extensions import override

from bus.errors import ConfigurationError

__all__ = ["EnvironmentSettings"]


class EnvironmentSettings(BaseSettings):
    """Base class of settings that are read from the environment.

    Set `env_prefix` in the subclass. The environment variable of a field is the field's name in
    capitals after this prefix. If a variable has this name in other letters, such as `bus_auth`,
    `ConfigurationError` is raised: pydantic would let one of the two win.

    A boolean is not a number, and a number is never infinite or NaN.
    """

    # allow_inf_nan=False: every wait must end, so no setting may be infinite.
    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False
    )

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
        """Check the names of the environment's variables, and return pydantic's own sources.

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
        return init_settings, env_settings, dotenv_settings, file_secret_settings

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_boolean(cls, value: object, info: ValidationInfo) -> object:
        field = cls.model_fields[str(info.field_name)]
        if isinstance(value, bool) and _is_numeric(field.annotation):
            raise PydanticCustomError("boolean", "must be a number, not a boolean")
        return value


def _is_numeric(annotation: object) -> bool:
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return not {int, float}.isdisjoint(kinds)
