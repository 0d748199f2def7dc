"""Names of the variables of all settings classes that the process has loaded."""

from collections.abc import Iterator

from pydantic_settings import BaseSettings

from bus.settings.environment import aliases_of

__all__ = ["nested_prefixes", "setting_names"]


def setting_names(settings: type[BaseSettings] = BaseSettings) -> Iterator[str]:
    """Yield the names of the variables of a class and its subclasses, in capitals."""
    prefix = settings.model_config.get("env_prefix") or ""
    for name, field in settings.model_fields.items():
        yield f"{prefix}{name}".upper()
        yield from (alias.upper() for alias in aliases_of(field))
    for subclass in settings.__subclasses__():
        yield from setting_names(subclass)


def nested_prefixes(settings: type[BaseSettings] = BaseSettings) -> Iterator[str]:
    """Yield the beginnings of the variables of nested fields, in capitals."""
    if delimiter := settings.model_config.get("env_nested_delimiter"):
        prefix = settings.model_config.get("env_prefix") or ""
        yield from (f"{prefix}{name}{delimiter}".upper() for name in settings.model_fields)
    for subclass in settings.__subclasses__():
        yield from nested_prefixes(subclass)
