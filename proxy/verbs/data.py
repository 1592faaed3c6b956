"""What the verbs of the command line share: settings from the options before the verb, and the database they name."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer
from sqlalchemy import make_url

from proxy.base.database import Database
from proxy.base.errors import ConfigError
from proxy.base.settings import Settings
from proxy.base.settings_file import load
from proxy.data_dir import KEY, OURS, prepare


@dataclass(frozen=True)
class Common:
    """Options before the verb."""

    config: Path | None
    data_dir: Path | None


def settings_of(context: typer.Context, config: Path | None = None, **flags: object) -> Settings:
    """The settings that a verb's flags, the options before it, the environment and the file make."""
    shared: Common = context.obj
    flags["data_dir"] = flags.get("data_dir") or shared.data_dir
    return load(config or shared.config, **flags)


@contextmanager
def database(settings: Settings, *, create: bool = False) -> Iterator[Database]:
    """The database at this version's schema. Only `create` makes one: a mistyped directory must not look empty."""
    from proxy.base.schema import upgrade

    _refuse_a_lost_one(settings)
    if create:
        prepare(settings.data_dir)
    else:
        _expect(settings)
    db = Database(settings.database)
    try:
        upgrade(db)
        yield db
    finally:
        db.close()


def _refuse_a_lost_one(settings: Settings) -> None:
    """A database is made before the key, so a key without one is no first start that was cut short."""
    path = settings.data_dir / OURS
    if settings.database_url is None and (settings.data_dir / KEY).exists() and not path.exists():
        raise ConfigError(
            f"The database {path} is missing although this data directory has been in use. Put it back, "
            f"or remove {KEY} to begin anew."
        )


def _expect(settings: Settings) -> None:
    url = make_url(settings.database)
    if not url.drivername.startswith("sqlite") or Path(url.database or "").is_file():
        return
    if settings.data_dir.is_dir():
        raise ConfigError(f"There is no database {url.database}. Check --data-dir, or start the server first.")
    raise ConfigError(f"There is no data directory {settings.data_dir}. Check --data-dir, or start the server first.")
