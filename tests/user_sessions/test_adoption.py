"""The controller after restarts and losses: adoption, rows and processes that disagree, a host that dies."""

import asyncio
import os
import signal

import pytest

from proxy.base.errors import Unavailable
from tests.user_sessions.controller_steps import ANN, nobody, pid_of, reconciler, set_state
from tests.user_sessions.studio import FaultySpawner, Studio, gone, make_spec


async def test_a_restarted_proxy_adopts_what_runs(studio: Studio) -> None:
    first = await studio.sessions.ensure(ANN, "ann")
    pid = await pid_of(first)
    after = await studio.another_proxy()
    assert after.address(ANN) is None
    await after.adopt()
    assert after.address(ANN) == first
    assert await pid_of(await after.ensure(ANN, "ann")) == pid


async def test_adoption_settles_what_does_not_agree(studio: Studio) -> None:
    sessions = studio.sessions
    await asyncio.gather(*(sessions.ensure(user, f"user-{user}") for user in (1, 2, 3, 4)))
    orphan = make_spec(studio.settings, "orphan")
    await studio.spawner.start(orphan)  # a process nobody has a row for
    await studio.spawner.stop((await studio.row(1)).session_id)  # a row whose process is gone
    await set_state(studio, 2, "stopping")  # a stop that was cut short
    await set_state(studio, 3, "starting")  # a start that was cut short after the process came up
    after = await studio.another_proxy()
    await after.adopt()
    states = {entry.user_id: entry.state for entry in await after.listing()}
    assert states == {1: "failed", 2: "stopped", 3: "running", 4: "running"}
    assert after.address(1) is None and after.address(2) is None
    assert await pid_of(await after.ensure(3, "user-3"))
    running = {poll.session_id for poll in await studio.spawner.listing()}
    assert running == {(await studio.row(user)).session_id for user in (3, 4)}


async def test_a_start_cut_short_before_its_process_is_started_over(studio: Studio) -> None:
    faulty = FaultySpawner(studio.spawner)
    faulty.unreachable = True
    with pytest.raises(Unavailable):
        await (await studio.another_proxy(faulty)).ensure(ANN, "ann")
    await set_state(studio, ANN, "starting")
    after = await studio.another_proxy()
    await after.adopt()
    assert (await studio.row(ANN)).state == "failed"
    assert await pid_of(await after.ensure(ANN, "ann"))


async def test_unknown_is_never_dead(studio: Studio) -> None:
    faulty = FaultySpawner(studio.spawner)
    sessions = await studio.another_proxy(faulty)
    address = await sessions.ensure(ANN, "ann")
    faulty.unreachable = True
    with pytest.raises(Unavailable):
        await reconciler(studio, sessions, faulty).turn(nobody)
    assert sessions.address(ANN) == address == await sessions.recheck(ANN)
    assert (await studio.row(ANN)).state == "running"
    with pytest.raises(Unavailable):
        await sessions.stop(ANN)
    assert (await studio.row(ANN)).state == "stopping"
    faulty.unreachable = False
    await reconciler(studio, sessions, faulty).turn(nobody)  # what is wanted is tried again
    assert (await studio.row(ANN)).state == "stopped"
    assert await studio.spawner.listing() == []


async def test_a_start_whose_answer_was_lost_leaves_no_process(studio: Studio) -> None:
    faulty = FaultySpawner(studio.spawner)
    faulty.lose_answers = True
    sessions = await studio.another_proxy(faulty)
    with pytest.raises(Unavailable, match="the answer was lost"):
        await sessions.ensure(ANN, "ann")
    assert len(await studio.spawner.listing()) == 1
    await reconciler(studio, sessions, faulty).turn(nobody)
    assert await studio.spawner.listing() == []


async def test_the_host_dying_costs_the_sessions_and_nothing_else(studio: Studio) -> None:
    first = await studio.sessions.ensure(ANN, "ann")
    pid = await pid_of(first)
    os.kill((await studio.health())["pid"], signal.SIGKILL)
    await gone(pid)
    await reconciler(studio).turn(nobody)  # starts a host again and finds nothing there
    assert (await studio.row(ANN)).state == "failed"
    assert await pid_of(await studio.sessions.ensure(ANN, "ann")) != pid


async def test_a_clean_stop_of_the_server_fails_no_session(studio: Studio) -> None:
    await asyncio.gather(*(studio.sessions.ensure(user, f"user-{user}") for user in (1, 2, 3)))
    await set_state(studio, 2, "starting")
    await set_state(studio, 3, "stopping")
    assert await studio.host.stop()
    await studio.sessions.host_ended()
    assert [view.state for view in await studio.sessions.listing()] == ["stopped"] * 3
    assert studio.sessions.address(1) is None
    await studio.host.ensure()
    after = await studio.another_proxy()
    await after.adopt()
    assert {(view.state, view.error) for view in await after.listing()} == {("stopped", "")}
    assert await pid_of(await after.ensure(1, "user-1"))


async def test_a_host_of_others_keeps_its_sessions(studio: Studio) -> None:
    address = await studio.sessions.ensure(ANN, "ann")
    record = studio.host.record.read_text()
    studio.host.record.unlink()
    assert not await studio.host.stop()
    assert await pid_of(address)
    studio.host.record.write_text(record)
