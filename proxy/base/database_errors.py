"""What an error of a database's driver means for whoever asked: no room, no answer for now, or a defect of ours.

Pure. SQLite tells by its exception's class and text, PostgreSQL by its class and SQLSTATE.
"""

import sqlite3
from typing import Final

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from proxy.base.errors import DatabaseUnavailable, DiskFull, Unavailable

FULL: Final = "The disk that holds the database is full. Free some space and try again."
AWAY: Final = "The database did not answer. Try again in a moment."

DISK_FULL_STATE: Final = "53100"
PASSING_STATES: Final = ("08", "25006", "40", "53", "55P03", "57", "58")
"""Connection lost, a standby that takes no writes, deadlock, no resources, lock timeout, shutdown, input or output."""


def meaning(error: SQLAlchemyError) -> Unavailable | None:
    """What to raise in its place; None for errors that say nothing about the database's health."""
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable(AWAY, "all its connections are in use")
    if not isinstance(error, DBAPIError):
        return None
    text = str(error.orig)
    if isinstance(error.orig, sqlite3.Error):
        if isinstance(error.orig, sqlite3.OperationalError) and "disk is full" in text:
            return DiskFull(FULL)
        known = isinstance(error.orig, sqlite3.OperationalError) or type(error.orig) is sqlite3.DatabaseError
        return DatabaseUnavailable(AWAY, text) if known else None  # the plain class: damaged, or no database at all
    state = getattr(error.orig, "sqlstate", None)
    if state == DISK_FULL_STATE:
        return DiskFull(FULL)
    if state is None:  # the server never said anything: nobody there, or the line broke
        gone = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
        return DatabaseUnavailable(AWAY, text) if gone else None
    passing = error.connection_invalidated or str(state).startswith(PASSING_STATES)
    return DatabaseUnavailable(AWAY, text) if passing else None
