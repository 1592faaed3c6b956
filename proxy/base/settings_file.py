"""Reads the settings of one start: flags, environment, TOML file, and what is wrong with them in words."""

from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsConfigDict

from proxy.base.errors import ConfigError
from proxy.base.settings import Settings


def load(config: Path | None = None, **flags: Any) -> Settings:
    """Read the settings; flags that are None do not count. Raises ConfigError naming each bad setting."""
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        if config is None:
            return Settings(**given)
        if not config.is_file():
            raise ConfigError(f"There is no settings file {config}. Check --config.")

        class FromFile(Settings):  # one per call, since pydantic-settings keeps the path on the class
            model_config = SettingsConfigDict(toml_file=config)

        return Settings(**FromFile(**given).model_dump())
    except ValidationError as error:
        problems = "; ".join(
            ": ".join(filter(None, (".".join(map(str, e["loc"])), _words(e["type"], e["msg"])))) for e in error.errors()
        )
        raise ConfigError(f"Settings are not usable: {problems}") from error
    except TOMLDecodeError as error:
        raise ConfigError(f"Settings are not readable: {config}: {error}") from error
    except ValueError as error:  # malformed JSON in an environment variable
        raise ConfigError(f"Settings are not readable: {error}") from error


def _words(kind: str, message: str) -> str:
    return "there is no such setting" if kind == "extra_forbidden" else message.removeprefix("Value error, ")
