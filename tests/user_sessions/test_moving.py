"""Outdated sessions: seen in the listing, moved while nobody looks, left alone while somebody does."""

import asyncio
from pathlib import Path

import pytest

from tests.user_sessions.controller_steps import ANN, BOB, nobody, reconciler
from tests.user_sessions.studio import Studio, open_studio, refreshed, until
from user_sessions import memory
from user_sessions.report import Report


async def outdate(studio: Studio, *users: int) -> None:
    """Start their sessions, then refresh."""
    for user in users:
        await studio.sessions.ensure(user, f"user-{user}")
    assert (await refreshed(studio.spawner)).state == "done"


async def outdated(studio: Studio) -> dict[int, bool]:
    return {view.user_id: view.outdated for view in await studio.sessions.listing()}


async def test_a_refresh_outdates_what_runs_until_its_user_restarts_it(studio: Studio) -> None:
    news: list[int] = []
    studio.sessions.on_news(news.append)
    first = await studio.sessions.ensure(ANN, "ann")
    assert (await studio.sessions.refresh("root")).by == "root"

    async def known() -> bool:
        await reconciler(studio).turn(nobody)
        return (await outdated(studio))[ANN]

    await until(known)
    assert studio.sessions.report.refresh.state == "done"
    assert news == [ANN]
    await reconciler(studio).turn(nobody)
    assert news == [ANN]  # told once
    assert (await studio.sessions.restart(ANN, "ann")).session_id != first.session_id
    await reconciler(studio).turn(nobody)
    assert not (await outdated(studio))[ANN]


async def test_idle_ones_move_and_their_last_action_stays(place: Path) -> None:
    async with open_studio(place, session_refresh_idle_s=0.0) as studio:
        await outdate(studio, ANN)
        before = await studio.row(ANN)
        loop = reconciler(studio)

        async def moved() -> bool:
            await loop.turn(nobody)
            return not (await outdated(studio))[ANN] and studio.sessions.address(ANN) is not None

        await until(moved)
        row = await studio.row(ANN)
        assert row.pid != before.pid and row.generation == before.generation + 1
        assert row.active_ms == before.active_ms
        assert row.started_ms is not None and before.started_ms is not None and row.started_ms > before.started_ms


async def test_used_ones_stay(place: Path) -> None:
    async with open_studio(place, session_refresh_idle_s=0.0) as studio:
        await outdate(studio, 1, 2, 3)
        loop = reconciler(studio)

        async def moved() -> bool:
            await loop.turn(lambda: {1}, lambda: {2})
            return not (await outdated(studio))[3] and studio.sessions.address(3) is not None

        await until(moved)
        assert await outdated(studio) == {1: True, 2: True, 3: False}
        assert [(await studio.row(user)).generation for user in (1, 2, 3)] == [1, 1, 2]


async def test_a_recent_action_keeps_one(place: Path) -> None:
    async with open_studio(place, session_refresh_idle_s=3600.0) as studio:
        await outdate(studio, ANN)
        loop = reconciler(studio)
        await loop.turn(nobody)
        await loop.turn(nobody)
        assert await outdated(studio) == {ANN: True}
        limit_ms = (await studio.row(ANN)).active_ms - 1
        await studio.sessions.move(ANN, "user-1", limit_ms)  # as for an action after the decision to move
        assert (await studio.row(ANN)).generation == 1


async def test_a_session_that_was_never_there_is_not_moved(studio: Studio) -> None:
    await studio.sessions.move(BOB, "bob", 0)
    assert await studio.sessions.view_of(BOB) is None
    assert studio.sessions.report == Report()


async def test_a_restarted_proxy_knows_what_is_outdated(studio: Studio) -> None:
    await outdate(studio, ANN)
    after = await studio.another_proxy()
    await after.adopt()
    view = await after.view_of(ANN)
    assert view is not None and view.outdated


async def test_memory_is_told_when_asked(studio: Studio) -> None:
    await asyncio.gather(studio.sessions.ensure(ANN, "ann"), studio.sessions.ensure(BOB, "bob"))
    await studio.sessions.stop(BOB)
    ann, bob = await studio.sessions.listing(memory=True)
    assert ann.memory is not None and ann.memory > 1 << 20 and bob.memory is None


def test_figures_are_kept_and_one_look_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    taken: list[int] = []

    def slow(pid: int) -> int:
        nonlocal now
        now += 0.06
        taken.append(pid)
        return pid * 10

    monkeypatch.setattr(memory, "monotonic_s", lambda: now)
    monkeypatch.setattr(memory, "memory_of", slow)
    gauge = memory.Gauge()
    pids = {"a": 1, "b": 2, "c": 3}
    assert gauge.look(pids) == {"a": 10, "b": 20, "c": None}  # the budget was spent
    assert gauge.look(pids) == {"a": 10, "b": 20, "c": 30}
    gauge.look(pids)
    assert taken == [1, 2, 3]
    now += memory.KEPT_S
    assert gauge.look({"c": 3, "a": 1}) == {"a": 10, "c": 30}
    assert taken == [1, 2, 3, 1, 3]


def test_a_process_that_is_gone_takes_nothing() -> None:
    assert memory.memory_of(2**30) is None
