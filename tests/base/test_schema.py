"""Migrations: they make what the models say, copy the database first, and never touch what a newer version made."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlmodel import SQLModel

import proxy.app  # noqa: F401 - declares every table
from proxy.base import schema
from proxy.base.database import Database, sqlite_url
from proxy.base.errors import ConfigError
from proxy.base.schema import state_of, upgrade

NEXT = '''"""One more column."""
import sqlalchemy as sa
from alembic import op
revision = "9000"
down_revision = {previous!r}
def upgrade() -> None:
    op.add_column("backends", sa.Column("colour", sa.String()))
    {then}
'''


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    made = Database(sqlite_url(tmp_path / "cluster.db"))
    yield made
    made.close()


@pytest.fixture
def newer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A later version of this software with one more migration; returns that migration's file."""
    scripts = tmp_path / "scripts"
    shutil.copytree(schema.SCRIPTS, scripts)
    monkeypatch.setattr(schema, "SCRIPTS", scripts)
    return scripts / "versions" / "9000_next.py"


def columns(db: Database) -> set[str]:
    with db.reader.connect() as connection:
        return {row[1] for row in connection.exec_driver_sql("PRAGMA table_info(backends)")}


def test_migrations_make_what_the_models_say(db: Database) -> None:
    upgrade(db)
    with db.reader.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)
    assert differences == []


def test_a_second_start_changes_nothing(db: Database, tmp_path: Path) -> None:
    upgrade(db)
    upgrade(db)
    current, newest, known = state_of(db)
    assert current == newest and known
    assert list(tmp_path.glob("*.before-*")) == []


def test_an_upgrade_copies_the_database_first(db: Database, tmp_path: Path, newer: Path) -> None:
    upgrade(db)
    previous = state_of(db)[0]
    newer.write_text(NEXT.format(previous=previous, then=""))
    assert state_of(db) == (previous, "9000", True)
    upgrade(db)
    assert "colour" in columns(db)
    copy = tmp_path / f"cluster.db.before-{previous}"
    assert copy.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(copy) as kept:
        assert kept.execute("SELECT version_num FROM alembic_version").fetchone() == (previous,)
    kept.close()


def test_a_migration_that_fails_leaves_the_database_as_it_was(db: Database, newer: Path) -> None:
    upgrade(db)
    previous = state_of(db)[0]
    newer.write_text(NEXT.format(previous=previous, then='raise RuntimeError("no")'))
    with pytest.raises(RuntimeError, match="no"):
        upgrade(db)
    assert state_of(db)[0] == previous
    assert "colour" not in columns(db)


def test_a_database_of_a_newer_version_is_refused_untouched(db: Database, tmp_path: Path, newer: Path) -> None:
    upgrade(db)
    newer.write_text(NEXT.format(previous=state_of(db)[0], then=""))
    upgrade(db)
    newer.unlink()
    with pytest.raises(ConfigError, match="9000"):
        upgrade(db)
    assert "colour" in columns(db)
    assert not (tmp_path / "cluster.db.before-9000").exists()
