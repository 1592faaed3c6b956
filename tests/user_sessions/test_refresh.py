"""A refresh of the zygote: beside the old one, known to everybody, harmless when it fails."""

import asyncio
from pathlib import Path

import pytest

from tests.user_sessions.probe_runtime import BREAK
from tests.user_sessions.studio import FRAGILE, Studio, ask, gone, make_spec, open_studio, refreshed
from tests.user_sessions.test_host import children, started_pid, zygote_pid


async def test_a_refreshed_zygote_leaves_running_sessions_alone(studio: Studio) -> None:
    spec = make_spec(studio.settings, "ann")
    await studio.spawner.start(spec)
    old = await zygote_pid(studio)
    assert (await refreshed(studio.spawner)).state == "done"
    new = await zygote_pid(studio)
    assert new != old
    bob = await started_pid(studio, "bob")
    assert bob in children(new) and (await ask(spec, "pid"))["ok"] in children(old)
    await studio.spawner.stop(spec.session_id)
    await gone(old)  # retired, and its last session left
    assert (await studio.health())["zygote"]["retired"] == 0


async def test_a_refresh_without_sessions_leaves_one_zygote(studio: Studio) -> None:
    await started_pid(studio, "ann")  # so that it is warm
    await studio.spawner.stop((await studio.spawner.listing())[0].session_id)
    old = await zygote_pid(studio)
    assert (await refreshed(studio.spawner)).state == "done"
    await gone(old)
    assert (await studio.health())["zygote"]["retired"] == 0


async def test_two_who_refresh_at_once_share_one(studio: Studio) -> None:
    await started_pid(studio, "ann")
    first, second = await asyncio.gather(studio.spawner.refresh("one"), studio.spawner.refresh("two"))
    assert first == second and first.state == "warming"
    await refreshed(studio.spawner)
    assert (await studio.health())["zygote"]["retired"] == 1


async def test_a_refresh_that_fails_leaves_the_old_one_in_service(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BREAK, str(place / "break"))
    async with open_studio(place, FRAGILE) as studio:
        ann = make_spec(studio.settings, "ann")
        await studio.spawner.start(ann)
        old = await zygote_pid(studio)
        (place / "break").touch()
        refresh = await refreshed(studio.spawner)
        assert refresh.state == "failed" and "broken custom node" in refresh.error
        assert await zygote_pid(studio) == old
        assert [poll.outdated for poll in await studio.spawner.listing()] == [False]
        assert await started_pid(studio, "bob") in children(old)
        (place / "break").unlink()
        assert (await refreshed(studio.spawner)).state == "done"
        assert sorted(poll.outdated for poll in await studio.spawner.listing()) == [True, True]


async def test_packs_that_failed_are_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BREAK, str(place / "break"))
    async with open_studio(place, FRAGILE) as studio:
        await started_pid(studio, "ann")
        (told,) = (await studio.spawner.report()).failed_nodes
        assert (told.pack, told.error, told.log) == ("bad-pack", "No module named 'torch'", "its last words")
