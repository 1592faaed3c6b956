"""Sessions that crash: brought back for an open tab, not started for ever, started again by their user's wish."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from proxy.base.errors import Unavailable
from proxy.base.tasks import Tasks
from tests.user_sessions.controller_steps import ANN, pid_of
from tests.user_sessions.studio import BROKEN, Studio, ask, gone, open_studio, until
from user_sessions import starts
from user_sessions.starts import Starts
from user_sessions.state import (
    CRASH_REST_MS,
    CRASH_WINDOW_MS,
    SessionState,
    Transition,
    crashed_last,
    crashes,
    gave_up,
    remember,
)

STOPPED, STARTING, RUNNING, STOPPING, FAILED = (
    SessionState.STOPPED,
    SessionState.STARTING,
    SessionState.RUNNING,
    SessionState.STOPPING,
    SessionState.FAILED,
)


def history(*changes: tuple[int, SessionState, SessionState]) -> str:
    """Stored changes at these milliseconds."""
    made = "[]"
    for at_ms, before, after in changes:
        made = remember(made, Transition(at_ms, before, after, "x"))
    return made


def crash(at_ms: int) -> tuple[tuple[int, SessionState, SessionState], ...]:
    """A start and a crash."""
    return ((at_ms, STARTING, RUNNING), (at_ms, RUNNING, FAILED))


def test_crashes_are_counted_since_the_last_stop() -> None:
    stopped = ((3, RUNNING, STOPPING), (4, STOPPING, STOPPED))
    assert crashes(history(*crash(1), *crash(2))) == [1, 2]
    assert crashes(history(*crash(1), *stopped)) == []
    assert crashes(history(*crash(1), *stopped, *crash(9))) == [9]
    assert crashes(history((1, STARTING, FAILED))) == []
    assert crashed_last(history(*crash(1))) and not crashed_last(history(*crash(1), (2, FAILED, STARTING)))
    assert not crashed_last("[]")


@pytest.mark.parametrize(
    ("at_ms", "now_ms", "expected"),
    [
        ((0, 1, 2), 3, True),
        ((0, 1), 3, False),
        ((0, 1, CRASH_WINDOW_MS), CRASH_WINDOW_MS, True),
        ((0, 1, CRASH_WINDOW_MS + 1), CRASH_WINDOW_MS + 1, False),
        ((0, CRASH_WINDOW_MS, CRASH_WINDOW_MS, CRASH_WINDOW_MS), CRASH_WINDOW_MS, True),
        ((0, 1, 2), 2 + CRASH_REST_MS, False),
    ],
)
def test_when_it_gives_up(at_ms: tuple[int, ...], now_ms: int, expected: bool) -> None:
    assert gave_up(history(*(change for at in at_ms for change in crash(at))), now_ms) is expected


async def crashed(studio: Studio) -> str:
    """Start Ann's session and kill it; returns once the proxy knows. Its id."""
    address = await studio.sessions.ensure(ANN, "ann")
    pid = await pid_of(address)
    os.kill(pid, signal.SIGKILL)
    await gone(pid)

    async def known() -> bool:
        return await studio.sessions.is_gone(ANN, address.session_id)

    await until(known)
    return address.session_id


async def test_three_crashes_are_the_last_until_its_user_wants_it_back(studio: Studio) -> None:
    first = await studio.sessions.ensure(ANN, "ann")
    await ask(first, "shout", count=1)
    for _ in range(3):
        await crashed(studio)
    row = await studio.row(ANN)
    for _ in range(2):
        with pytest.raises(Unavailable, match="ended 3 times within a minute") as refused:
            await studio.sessions.ensure(ANN, "ann")
        assert "xxxx" in refused.value.details  # the end of its log
    await studio.sessions.revive(ANN, "ann")
    assert (await studio.row(ANN)).generation == row.generation
    view = await studio.sessions.view_of(ANN)
    assert view is not None and view.gave_up and view.crashed_ms is not None

    assert await pid_of(await studio.sessions.restart(ANN, "ann"))
    view = await studio.sessions.view_of(ANN)
    assert view is not None and not view.gave_up and view.crashed_ms is None
    await crashed(studio)  # counted anew
    assert await pid_of(await studio.sessions.ensure(ANN, "ann"))


async def test_an_open_tab_brings_a_crashed_one_back_and_is_told(studio: Studio) -> None:
    news: list[int] = []
    studio.sessions.on_news(news.append)
    session_id = await crashed(studio)
    await studio.sessions.revive(ANN, "ann", session_id)
    view = await studio.sessions.view_of(ANN)
    assert view is not None and (view.state, view.gave_up) == ("running", False) and view.crashed_ms is not None
    assert news == [ANN, ANN]  # it ended, it is back


async def test_a_tab_starts_nothing_that_was_stopped_or_runs(studio: Studio) -> None:
    await studio.sessions.revive(ANN, "ann")  # never was
    assert await studio.sessions.view_of(ANN) is None
    address = await studio.sessions.ensure(ANN, "ann")
    await studio.sessions.revive(ANN, "ann", address.session_id)  # its connection broke, but it lives
    assert studio.sessions.address(ANN) == address
    await studio.sessions.stop(ANN)
    await studio.sessions.revive(ANN, "ann", address.session_id)
    assert (await studio.row(ANN)).state == "stopped"


async def test_a_tab_does_not_start_again_what_fails_to_start(place: Path) -> None:
    async with open_studio(place, BROKEN) as studio:
        with pytest.raises(Unavailable, match="did not start"):
            await studio.sessions.ensure(ANN, "ann")
        await studio.sessions.revive(ANN, "ann")
        assert (await studio.row(ANN)).generation == 1


async def test_each_failure_in_a_row_is_remembered_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(starts, "monotonic_s", lambda: now)
    begun: list[float] = []
    tasks = Tasks()
    queue: Starts[int] = Starts(tasks, 10)

    async def fail() -> int:
        begun.append(now)
        raise Unavailable("no")

    async def succeed() -> int:
        return 7

    while now < 60:
        with pytest.raises(Unavailable, match="no"):
            await queue.join(1, fail)
        now += 1
    assert begun == [0, 2, 6, 14, 30, 46]
    queue.forgive(1)
    assert await queue.join(1, succeed) == 7
    joined = await asyncio.gather(queue.join(2, succeed), queue.join(2, fail))
    assert list(joined) == [7, 7]
    await tasks.stop()
