"""The controller over a real session host: starts, joins, stops, crashes, culling, limits."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from proxy.base.errors import Unavailable
from tests.user_sessions.controller_steps import ANN, BOB, nobody, pid_of, reconciler, set_row
from tests.user_sessions.studio import BROKEN, FaultySpawner, Studio, ask, gone, open_studio, until
from user_sessions.live import Address


async def test_a_session_starts_stops_and_starts_again(studio: Studio) -> None:
    sessions = studio.sessions
    assert sessions.address(ANN) is None
    first = await sessions.ensure(ANN, "ann")
    assert sessions.address(ANN) == first == await sessions.ensure(ANN, "ann")
    pid = await pid_of(first)
    assert (await studio.row(ANN)).pid == pid

    await sessions.stop(ANN)
    await gone(pid)
    assert sessions.address(ANN) is None
    row = await studio.row(ANN)
    assert (row.state, row.desired, row.pid) == ("stopped", "stopped", None)

    second = await sessions.ensure(ANN, "ann")
    assert second.session_id != first.session_id and second.secret != first.secret
    assert await ask(second, "pid", secret=first.secret) == {"status": 403}
    third = await sessions.restart(ANN, "ann")
    assert await pid_of(third) != pid
    assert [entry.state for entry in await sessions.listing()] == ["running"]
    assert await sessions.view_of(ANN) == (await sessions.listing())[0]
    assert await sessions.view_of(BOB) is None
    assert (await studio.row(ANN)).generation == 3


async def test_those_who_ask_at_once_share_one_start(studio: Studio) -> None:
    addresses = await asyncio.gather(*(studio.sessions.ensure(ANN, "ann") for _ in range(20)))
    assert len(set(addresses)) == 1
    assert (await studio.row(ANN)).generation == 1


async def test_fifty_users_at_once_all_get_a_session(studio: Studio) -> None:
    async with asyncio.timeout(60):
        addresses = await asyncio.gather(*(studio.sessions.ensure(user, f"user-{user}") for user in range(50)))
    pids = await asyncio.gather(*(pid_of(address) for address in addresses))
    assert len(set(pids)) == 50
    assert (await studio.health())["sessions"]["running"] == 50
    await asyncio.gather(*(studio.sessions.stop(user) for user in range(50)))
    assert await studio.spawner.listing() == []


async def test_someone_who_goes_away_does_not_take_the_start_along(studio: Studio) -> None:
    leaving = asyncio.gather(studio.sessions.ensure(ANN, "ann"))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert await pid_of(await studio.sessions.ensure(ANN, "ann"))
    assert (await studio.row(ANN)).generation == 1


async def test_the_row_is_there_before_the_process(studio: Studio) -> None:
    faulty = FaultySpawner(studio.spawner)
    faulty.hold = asyncio.Event()
    sessions = await studio.another_proxy(faulty)
    starting = asyncio.gather(sessions.ensure(ANN, "ann"))

    async def asked() -> bool:
        return bool(faulty.started)

    await until(asked)
    row = await studio.row(ANN)
    assert (row.state, row.secret, row.session_id) == (
        "starting",
        faulty.started[0].secret,
        faulty.started[0].session_id,
    )
    faulty.hold.set()
    await starting


async def test_a_crash_is_noticed_told_and_mended_by_the_next_visit(studio: Studio) -> None:
    ended: list[tuple[int, Address]] = []

    async def note(user_id: int, address: Address) -> None:
        ended.append((user_id, address))

    studio.sessions.live.on_end.append(note)
    first = await studio.sessions.ensure(ANN, "ann")
    pid = await pid_of(first)
    os.kill(pid, signal.SIGKILL)
    await gone(pid)

    async def noticed() -> bool:
        await reconciler(studio).turn(nobody)
        return studio.sessions.address(ANN) is None

    await until(noticed)
    row = await studio.row(ANN)
    assert row.state == "failed" and "-9" in row.error

    async def told() -> bool:
        return bool(ended)

    await until(told)
    assert ended == [(ANN, first)]
    assert await pid_of(await studio.sessions.ensure(ANN, "ann")) != pid


async def test_a_refused_connection_can_be_rechecked_at_once(studio: Studio) -> None:
    first = await studio.sessions.ensure(ANN, "ann")
    assert await studio.sessions.recheck(ANN) == first
    pid = await pid_of(first)
    os.kill(pid, signal.SIGKILL)
    await gone(pid)

    assert await studio.sessions.recheck(ANN) is None
    assert (await studio.row(ANN)).state == "failed"
    assert await studio.sessions.recheck(BOB) is None


async def test_a_recheck_waits_for_an_end_that_the_zygote_has_not_told_yet(studio: Studio) -> None:
    first = await studio.sessions.ensure(ANN, "ann")
    pid = await pid_of(first)
    zygote = (await studio.health())["zygote"]["pid"]
    os.kill(zygote, signal.SIGSTOP)
    try:
        os.kill(pid, signal.SIGKILL)
        await gone(pid)
        rechecking = asyncio.gather(studio.sessions.recheck(ANN))
        await studio.health()  # a way to the host and back: the question has arrived there
    finally:
        os.kill(zygote, signal.SIGCONT)
    assert (await rechecking)[0] is None
    assert "-9" in (await studio.row(ANN)).error


async def test_a_recheck_notices_sessions_that_died_with_their_host(studio: Studio) -> None:
    first = await studio.sessions.ensure(ANN, "ann")
    pid = await pid_of(first)
    os.kill((await studio.health())["pid"], signal.SIGKILL)
    await gone(pid)
    assert await studio.sessions.recheck(ANN) is None  # starts a host again, which knows of no session
    assert (await studio.row(ANN)).state == "failed"
    assert await pid_of(await studio.sessions.ensure(ANN, "ann")) != pid


async def test_idle_sessions_are_stopped_but_not_busy_or_touched_ones(place: Path) -> None:
    async with open_studio(place, session_idle_timeout_s=3600.0) as studio:
        sessions = studio.sessions
        for user in (1, 2, 3, 4):
            await sessions.ensure(user, f"user-{user}")
        for user in (1, 2, 3):
            await set_row(studio, user, active_ms=1)  # long ago
        sessions.touch(2)
        await reconciler(studio).turn(lambda: {3})
        states = {entry.user_id: entry.state for entry in await sessions.listing()}
        assert states == {1: "stopped", 2: "running", 3: "running", 4: "running"}
        assert sessions.address(1) is None
        assert [t.why for t in (await sessions.listing())[0].history][-2:] == ["idle", "ended"]


async def test_zero_never_stops_an_idle_session(place: Path) -> None:
    async with open_studio(place, session_idle_timeout_s=0.0) as studio:
        await studio.sessions.ensure(ANN, "ann")
        await set_row(studio, ANN, active_ms=1)
        await reconciler(studio).turn(nobody)
        assert (await studio.row(ANN)).state == "running"


async def test_touches_reach_the_row_and_never_move_it_back(studio: Studio) -> None:
    await studio.sessions.ensure(ANN, "ann")
    await set_row(studio, ANN, active_ms=1)
    studio.sessions.touch(ANN)
    await reconciler(studio).flush()
    written = (await studio.row(ANN)).active_ms
    assert written > 1 and studio.sessions.touched == {}
    studio.sessions.touched[ANN] = 5
    await reconciler(studio).flush()
    assert (await studio.row(ANN)).active_ms == written


async def test_the_limit_refuses_with_what_to_do(place: Path) -> None:
    async with open_studio(place, session_limit=2) as studio:
        await studio.sessions.ensure(1, "one")
        await studio.sessions.ensure(2, "two")
        with pytest.raises(Unavailable, match="All 2 sessions are in use"):
            await studio.sessions.ensure(3, "three")
        await studio.sessions.stop(1)
        assert await pid_of(await studio.sessions.ensure(4, "four"))


async def test_a_runtime_that_fails_is_told_and_not_started_for_each_reload(place: Path) -> None:
    async with open_studio(place, BROKEN) as studio:
        faulty = FaultySpawner(studio.spawner)
        sessions = await studio.another_proxy(faulty)
        for _ in range(5):
            with pytest.raises(Unavailable, match="did not start"):
                await sessions.ensure(ANN, "ann")
        assert len(faulty.started) < 5
        row = await studio.row(ANN)
        assert row.state == "failed" and "broken on purpose" in row.error


async def test_a_full_or_broken_disk_is_named(studio: Studio) -> None:
    users = studio.settings.data_dir / "users"
    users.write_text("a file in the way")
    with pytest.raises(Unavailable, match="not a plain directory"):
        await studio.sessions.ensure(ANN, "ann")
    users.unlink()
    assert await pid_of(await studio.sessions.restart(ANN, "ann"))


async def test_two_proxies_share_one_session(studio: Studio) -> None:
    other = await studio.another_proxy()
    mine = await studio.sessions.ensure(ANN, "ann")
    assert await other.ensure(ANN, "ann") == mine
    await other.stop(ANN)
    await reconciler(studio).turn(nobody)
    assert studio.sessions.address(ANN) is None


async def test_the_loop_survives_a_spawner_that_cannot_be_asked(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("user_sessions.reconcile.INTERVAL_S", 0.01)
    faulty = FaultySpawner(studio.spawner)
    faulty.unreachable = True
    sessions = await studio.another_proxy(faulty)
    looks: list[int] = []

    def busy() -> set[int]:
        looks.append(1)
        return set()

    watching = studio.tasks.start("watch", sessions.watch(busy), vital=True)

    async def asked() -> bool:
        return faulty.asked > 2

    await until(asked)
    assert not looks and not watching.done()
    faulty.unreachable = False

    async def looked() -> bool:
        return len(looks) > 1

    await until(looked)
    assert studio.tasks.dead == {}


async def test_the_loop_survives_a_defect(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("user_sessions.reconcile.INTERVAL_S", 0.01)
    looks: list[int] = []

    def busy() -> set[int]:
        looks.append(1)
        if len(looks) < 3:
            raise ValueError("a row that makes no sense")
        return set()

    watching = studio.tasks.start("watch", studio.sessions.watch(busy), vital=True)

    async def went_on() -> bool:
        return len(looks) > 3 or watching.done()

    await until(went_on)
    assert not watching.done() and studio.tasks.dead == {}
