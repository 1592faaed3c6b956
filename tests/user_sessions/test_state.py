"""The state machine and its rows: every change of the table, none besides, and compare-and-set on a database."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlmodel import SQLModel

from proxy.base.database import Database, sqlite_url
from proxy.base.errors import Unavailable
from user_sessions import store
from user_sessions.model import SessionRow
from user_sessions.state import (
    HISTORY_KEPT,
    IllegalTransition,
    SessionState,
    Transition,
    check,
    remember,
    transitions,
)
from user_sessions.view import view

STOPPED, STARTING, RUNNING, STOPPING, FAILED = (
    SessionState.STOPPED,
    SessionState.STARTING,
    SessionState.RUNNING,
    SessionState.STOPPING,
    SessionState.FAILED,
)
LEGAL = {
    (STOPPED, STARTING),
    (STARTING, RUNNING),
    (STARTING, STOPPING),
    (STARTING, FAILED),
    (RUNNING, STOPPING),
    (RUNNING, FAILED),
    (STOPPING, STOPPED),
    (FAILED, STARTING),
    (FAILED, STOPPED),
}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(SessionState, SessionState)))
def test_each_change(before: SessionState, after: SessionState) -> None:
    if (before, after) in LEGAL:
        check(before, after, "[]")
        return
    history = remember("[]", Transition(1, STOPPED, STARTING, "because"))
    with pytest.raises(IllegalTransition, match="because"):
        check(before, after, history)


def test_history_is_bounded_and_survives_damage() -> None:
    history = "[]"
    for number in range(HISTORY_KEPT + 5):
        history = remember(history, Transition(number, STOPPED, STARTING, "x"))
    assert [entry.at_ms for entry in transitions(history)] == list(range(5, HISTORY_KEPT + 5))
    for damaged in ("", "{", "[1]", '[{"at_ms": 1}]', '[{"at_ms": 1, "before": "?", "after": "?", "why": ""}]'):
        assert transitions(damaged) == []


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(sqlite_url(tmp_path / "cluster.db"))
    SQLModel.metadata.create_all(database.writer, [SQLModel.metadata.tables["sessions"]])
    yield database
    database.close()


def begin(db: Database, user_id: int, session_id: str = "a", limit: int = 9) -> SessionRow:
    start = store.Start(user_id, f"user-{user_id}", "/run/x", session_id, "hush")
    return db.write_now(lambda s: store.begin(s, start, limit=limit))


def change(db: Database, generation: int, expected: SessionState, after: SessionState) -> SessionRow | None:
    wanted = store.Change(1, generation, frozenset({expected}), after, "test", {"pid": 7})
    return db.write_now(lambda s: store.compare_and_set(s, wanted))


def test_a_late_change_cannot_touch_a_newer_generation(db: Database) -> None:
    assert begin(db, 1).generation == 1
    assert change(db, 1, STARTING, FAILED) is not None
    assert begin(db, 1, "b").generation == 2
    assert change(db, 1, STARTING, RUNNING) is None
    row = db.read_now(lambda s: store.get(s, 1))
    assert row is not None and (row.state, row.pid) == ("starting", None)
    changed = change(db, 2, STARTING, RUNNING)
    assert changed is not None and changed.pid == 7


def test_a_change_from_another_state_is_refused_quietly_and_an_illegal_one_loudly(db: Database) -> None:
    begin(db, 1)
    assert change(db, 1, RUNNING, STOPPING) is None
    with pytest.raises(IllegalTransition):
        change(db, 1, STARTING, STOPPED)
    with pytest.raises(IllegalTransition):
        begin(db, 1, "b")  # a process may run already
    row = db.read_now(lambda s: store.get(s, 1))
    assert row is not None and (row.state, row.session_id) == ("starting", "a")


def test_the_limit_counts_others_with_a_process(db: Database) -> None:
    begin(db, 1, limit=1)
    with pytest.raises(Unavailable):
        begin(db, 2, limit=1)
    assert db.read_now(lambda s: store.get(s, 2)) is None
    change(db, 1, STARTING, FAILED)
    begin(db, 2, limit=1)


def test_no_secret_is_shown(db: Database) -> None:
    row = begin(db, 1)
    assert "hush" not in repr(row) and "hush" not in repr(view(row))
