"""Brings the database to this version's schema: forward only, a copy of SQLite first, never below a newer schema."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, OperationalError

from proxy.base.database import Database
from proxy.base.errors import ConfigError, DatabaseUnavailable
from proxy.base.logs import events

log = events(__name__)

SCRIPTS = Path(__file__).parent / "migrations"


def upgrade(db: Database) -> None:
    """Run what is missing. Blocking. Raises ConfigError for a database that a newer version made or that is damaged."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    with _connected(db.writer) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
        connection.rollback()
        if current == scripts.get_current_head():
            return
        if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
            raise ConfigError(
                f"The database has the schema {current}, which this version does not know: a newer one made it. "
                "Start that version, or restore the copy it made before."
            )
        if current is not None and db.is_sqlite:
            _copy(Path(str(db.writer.url.database)), current)
        config.attributes["connection"] = connection
        with connection.begin():
            if not db.is_sqlite:
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")  # a table may be large
            command.upgrade(config, "head")
    log.info("database schema upgraded", was=current, now=scripts.get_current_head())


def state_of(db: Database) -> tuple[str | None, str | None, bool]:
    """The database's revision (None: empty), the newest one this version knows, and whether it knows the former."""
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    scripts = ScriptDirectory.from_config(config)
    with _connected(db.reader) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    return current, scripts.get_current_head(), current in {script.revision for script in scripts.walk_revisions()}


@contextmanager
def _connected(engine: Engine) -> Iterator[Connection]:
    """A connection whose failures are ours: one that may pass is Unavailable, a file that is no database is not."""
    where = engine.url.render_as_string(hide_password=True)
    try:
        with engine.connect() as connection:
            yield connection
    except OperationalError as error:
        raise DatabaseUnavailable(f"The database {where} does not answer.", str(error.orig)) from error
    except DBAPIError as error:
        raise ConfigError(f"The database {where} cannot be used: {error.orig}. Restore a copy of it.") from error


def _copy(path: Path, revision: str) -> None:
    target = path.with_name(f"{path.name}.before-{revision}")
    with sqlite3.connect(path) as source, sqlite3.connect(target) as copy:
        source.backup(copy)
    target.chmod(0o600)
    source.close()
    copy.close()
    log.info("database copied before its upgrade", copy=str(target))
