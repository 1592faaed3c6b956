"""What every spawner promises, run over all of them: the session host and plain children."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from proxy.base.errors import Conflict, Unavailable, Warming
from tests.user_sessions.studio import (
    BROKEN,
    COLD,
    DEAF,
    PROBE,
    WAIT_S,
    ask,
    gone,
    make_settings,
    make_spec,
    refreshed,
    until,
)
from user_sessions.children import Children
from user_sessions.host_process import HostProcess
from user_sessions.spawner import Spawner


class Kind:
    """Makes spawners of one kind over one place, and ends what they started."""

    def __init__(self, name: str, place: Path) -> None:
        self.name = name
        self.place = place
        self.settings = make_settings(place)
        self._hosts: list[HostProcess] = []
        self._spawners: list[Spawner] = []

    async def make(self, runtime: str = PROBE, **more: Any) -> Spawner:
        """A spawner that runs `runtime`."""
        settings = make_settings(self.place, **more)
        settings.data_dir.mkdir(exist_ok=True)
        if self.name == "host":
            host = HostProcess(settings, runtime)
            await host.ensure()
            self._hosts.append(host)
            made: Spawner = host.spawner()
        else:
            children = Children(settings, runtime)
            await children.ensure()
            made = children.spawner()
        self._spawners.append(made)
        return made

    async def close(self) -> None:
        """End everything."""
        for spawner in self._spawners:
            for poll in await spawner.listing():
                await spawner.stop(poll.session_id)
            await spawner.close()
        for host in self._hosts:
            await host.stop()


@pytest.fixture(params=["host", "child"])
async def kind(request: pytest.FixtureRequest, place: Path) -> AsyncIterator[Kind]:
    made = Kind(request.param, place)
    try:
        yield made
    finally:
        await made.close()


async def test_starts_answers_and_stops(kind: Kind) -> None:
    spawner = await kind.make()
    spec = make_spec(kind.settings, "ann")
    started = await spawner.start(spec)
    assert started.state == "running" and started.ready
    assert await ask(spec, "pid") == {"ok": started.pid}
    assert [poll.session_id for poll in await spawner.listing()] == [spec.session_id]
    await spawner.stop(spec.session_id)
    assert started.pid is not None
    await gone(started.pid)
    assert (await spawner.poll(spec.session_id)).state == "exited"
    assert await spawner.listing() == []


async def test_a_start_is_idempotent(kind: Kind) -> None:
    spawner = await kind.make()
    spec = make_spec(kind.settings, "ann")
    polls = await asyncio.gather(*(spawner.start(spec) for _ in range(5)))
    assert len({poll.pid for poll in polls}) == 1
    assert (await spawner.start(spec)).pid == polls[0].pid


async def test_one_user_never_gets_two_sessions(kind: Kind) -> None:
    spawner = await kind.make()
    spec = make_spec(kind.settings, "ann")
    await spawner.start(spec)
    with pytest.raises(Conflict):
        await spawner.start(replace(spec, session_id="another"))
    assert (await ask(spec, "pid"))["ok"]


async def test_an_id_nobody_started_is_unknown_and_stops_quietly(kind: Kind) -> None:
    spawner = await kind.make()
    assert (await spawner.poll("never")).state == "unknown"
    await spawner.stop("never")


async def test_a_killed_session_is_exited_with_its_code(kind: Kind) -> None:
    spawner = await kind.make()
    spec = make_spec(kind.settings, "ann")
    started = await spawner.start(spec)
    assert started.pid is not None
    os.kill(started.pid, signal.SIGKILL)

    async def exited() -> bool:
        return (await spawner.poll(spec.session_id)).state == "exited"

    await until(exited)
    assert (await spawner.poll(spec.session_id)).code == -signal.SIGKILL
    with pytest.raises(Unavailable):
        await spawner.start(spec)  # that id is used up; a new generation has a new one
    again = make_spec(kind.settings, "ann")
    assert (await spawner.start(again)).ready


async def test_what_a_session_left_behind_ends_with_it(kind: Kind) -> None:
    spawner = await kind.make()
    spec = make_spec(kind.settings, "ann")
    await spawner.start(spec)
    asking = asyncio.gather(ask(spec, "fork_and_die"), return_exceptions=True)  # the grandchild keeps it open

    async def exited() -> bool:
        return (await spawner.poll(spec.session_id)).state == "exited"

    await until(exited)
    grandchild = int(spec.log.read_text().partition("grandchild ")[2].split()[0])
    await gone(grandchild)
    assert isinstance((await asking)[0], aiohttp.ClientError)


async def test_a_runtime_that_fails_is_reported_with_its_log(kind: Kind) -> None:
    spawner = await kind.make(BROKEN)
    spec = make_spec(kind.settings, "ann")
    with pytest.raises(Unavailable) as failure:
        await spawner.start(spec)
    assert "broken on purpose" in failure.value.details
    assert (await spawner.poll(spec.session_id)).state == "exited"


async def test_a_runtime_that_never_answers_is_killed(kind: Kind) -> None:
    spawner = await kind.make(DEAF, session_start_timeout_s=2.0, session_stop_timeout_s=0.5)

    warming = True
    async with asyncio.timeout(WAIT_S):
        while warming:  # what a slow machine still prepares sessions from is not what is tested
            spec = make_spec(kind.settings, "ann")
            with pytest.raises(Unavailable) as failure:
                await spawner.start(spec)
            warming = isinstance(failure.value, Warming)
    assert "did not answer" in failure.value.message
    assert await spawner.listing() == []
    assert (await spawner.poll(spec.session_id)).state == "exited"


async def test_a_runtime_that_cannot_be_warmed_is_an_error_not_a_hang(kind: Kind) -> None:
    spawner = await kind.make(COLD, session_start_timeout_s=3.0)
    with pytest.raises(Unavailable):
        await spawner.start(make_spec(kind.settings, "ann"))
    assert await spawner.listing() == []


async def test_sessions_outlive_the_spawner_that_started_them(kind: Kind) -> None:
    first = await kind.make()
    spec = make_spec(kind.settings, "ann")
    started = await first.start(spec)
    await first.close()
    second = await kind.make()
    poll = await second.poll(spec.session_id)
    assert (poll.state, poll.pid) == ("running", started.pid)
    assert (await second.start(spec)).pid == started.pid
    await second.stop(spec.session_id)
    assert await second.listing() == []


async def test_the_secret_opens_a_session_and_nothing_else_does(kind: Kind) -> None:
    spawner = await kind.make()
    ann, bob = make_spec(kind.settings, "ann"), make_spec(kind.settings, "bob")
    await asyncio.gather(spawner.start(ann), spawner.start(bob))
    assert await ask(ann, "pid", secret=bob.secret) == {"status": 403}
    assert await ask(ann, "pid", secret="") == {"status": 403}
    assert (await ask(bob, "pid"))["ok"]


async def test_sessions_from_before_a_refresh_are_outdated(kind: Kind) -> None:
    spawner = await kind.make()
    ann, bob = make_spec(kind.settings, "ann"), make_spec(kind.settings, "bob")
    assert (await spawner.report()).refresh.state == "none"
    assert not (await spawner.start(ann)).outdated
    ended = await refreshed(spawner)
    assert (ended.state, ended.by, ended.error) == ("done", "the test", "")
    assert (await spawner.poll(ann.session_id)).outdated
    assert not (await spawner.start(bob)).outdated
    again = await kind.make()  # a restarted proxy finds it out too
    assert {poll.session_id: poll.outdated for poll in await again.listing()} == {
        ann.session_id: True,
        bob.session_id: False,
    }
    assert (await again.report()).refresh.state == "done"


async def test_a_listing_tells_memory_when_asked(kind: Kind) -> None:
    spawner = await kind.make()
    await spawner.start(make_spec(kind.settings, "ann"))
    assert [poll.memory for poll in await spawner.listing()] == [None]
    (poll,) = await spawner.listing(memory=True)
    assert poll.memory is not None and 1 << 20 < poll.memory < 1 << 30
