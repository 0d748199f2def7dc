"""Settings that do not read the environment."""

from typing import Any

from typing_extensions import override

from bus.settings import Settings

__all__ = ["ExplicitSettings"]


class ExplicitSettings(Settings):
    """Settings of a bus in a test: the arguments and the defaults, without the environment."""

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
        return (init_settings,)
