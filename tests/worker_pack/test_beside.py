"""A worker runs its next job while files of the one before come home, and gets what it needs beforehand."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from backend_pool.backends.change import Change
from backend_pool.backends.housekeeping import Housekeeping
from backend_pool.job_state import JobState
from backend_pool.model import BackendMode
from backend_pool.workers.beat import Beat
from proxy.base.clock import monotonic_s
from tests.backend_pool.graphs import loaded, sampled, saved
from tests.backend_pool.test_way import picture
from tests.worker_pack.beside import Scene, scene
from tests.worker_pack.cluster import Begin
from tests.worker_pack.test_jobs import painted


async def another_users_job_runs(s: Scene, a: int, b: int) -> None:
    """To its end, with its file home, before the first one's is; nothing of that one lies where prompts find it."""
    first = await s.travelling(a)
    second = await s.rig.submit(sampled(30), b)
    await s.rig.heard.until(second, "progress")
    assert s.member.collecting == {await s.key(first, a)} and s.member.job == await s.key(second, b)
    if s.word == "/file?":
        of_b, kept = sorted(s.homes())
        assert of_b == f"{b:020x}" and kept.startswith("kept-")
    assert (await s.rig.final(second, b))[0].state is JobState.SUCCEEDED
    assert "executed" not in s.rig.heard.kinds(first)
    s.link.let_go()
    job, document = await s.rig.final(first, a)
    assert job.state is JobState.SUCCEEDED and job.attempt == 1
    assert document.outputs["2"]["images"][0]["filename"] == "ComfyUI_00001_.png"
    assert s.rig.files(a) == s.rig.files(b) == ["output/ComfyUI_00001_.png"]


async def either_may_be_cancelled(s: Scene, a: int, b: int) -> None:
    """The one that renders, then the one whose files travel; the other is not touched by it."""
    first = await s.travelling(a)
    second = await s.rig.submit(sampled(10_000), b)
    await s.rig.heard.until(second, "progress")
    await s.rig.cancel(second, b)
    assert (await s.rig.final(second, b))[0].state is JobState.CANCELLED
    s.link.let_go()
    assert (await s.rig.final(first, a))[0].state is JobState.SUCCEEDED
    first = await s.travelling(a)
    second = await s.rig.submit(sampled(60), b)
    await s.rig.heard.until(second, "progress")
    await s.rig.cancel(first, a)
    assert (await s.rig.final(first, a))[0].state is JobState.CANCELLED
    assert (await s.rig.final(second, b))[0].state is JobState.SUCCEEDED
    s.link.let_go()
    assert s.rig.files(a) == s.rig.files(b) == ["output/ComfyUI_00001_.png"]


async def their_own_next_job_waits(s: Scene, a: int, b: int) -> None:
    """It may read what the first one wrote, and counts on from it. Another's does not wait for that."""
    first = await s.travelling(a)
    second = await s.rig.submit(loaded("ComfyUI_00001_.png [output]", "ComfyUI"), a)
    assert (await s.rig.run(saved(), b))[0].state is JobState.SUCCEEDED
    assert (await s.rig.entry(second, a))[0].state is JobState.QUEUED
    s.link.let_go()
    for prompt_id in (first, second):
        job, document = await s.rig.final(prompt_id, a)
        assert job.state is JobState.SUCCEEDED, document.messages
    assert s.rig.files(a) == ["output/ComfyUI_00001_.png", "output/ComfyUI_00002_.png"]
    told = [prompt_id for prompt_id, _, _ in s.rig.heard.events if prompt_id in (first, second)]
    assert told.index(second) == told.count(first), "tabs hear of one after the other"


async def a_drain_empties_it_of_what_renders_alone(s: Scene, a: int, b: int) -> None:
    """What has been rendered is fetched; of the one that was taken away nothing stays, though its job has not ended."""
    first = await s.travelling(a)
    second = await s.rig.submit(sampled(10_000), b)
    await s.rig.heard.until(second, "progress")
    await s.rig.registry.change(s.member.key, Change(mode=BackendMode.DRAINING, drain_by_ms=1))
    await s.rig.eventually(lambda: s.member.row.mode is BackendMode.DRAINING)
    Housekeeping(s.rig.pool, s.hub.settings, s.rig.tasks, s.rig.dispatcher.ring).look()
    await s.rig.eventually(lambda: s.member.job is None and len(s.homes()) == 1)
    assert [(await s.rig.entry(*job))[0].state for job in ((first, a), (second, b))] == ["running", "queued"]
    s.link.let_go()
    job, _ = await s.rig.final(first, a)
    assert job.state is JobState.SUCCEEDED and job.attempt == 1
    await s.rig.cancel(second, b)
    await s.rig.registry.change(s.member.key, Change(mode=BackendMode.ACTIVE))
    await s.rig.eventually(lambda: s.member.idle)


async def its_inputs_are_there_before(s: Scene, a: int, b: int) -> None:
    """While another's job runs; when its turn comes nothing is sent."""
    picture(s.rig.dirs(b).input / "photo.png", "blue")
    long = await s.rig.submit(sampled(10_000), a)
    await s.rig.heard.until(long, "progress")
    sent = s.link.times("PUT ")
    second = await s.rig.submit(loaded("photo.png"), b)
    store = s.engine.base_dir / "worker-pack" / "store"
    await s.rig.eventually(lambda: any(len(path.name) == 64 for path in store.iterdir()))
    assert s.member.job == await s.key(long, a)
    await s.rig.cancel(long, a)
    job, document = await s.rig.final(second, b)
    assert job.state is JobState.SUCCEEDED, document.messages
    assert painted(s.hub, b, document.outputs["3"]["images"][0]["filename"]) == (255, 255, 0)
    assert s.link.times("PUT ") == sent + 1


async def who_sends_much_pays_for_it(s: Scene, a: int, _b: int) -> None:
    """Turns charge the whole time for which a backend waits for a job's files, also when it never begins there; the
    ledger counts what it took of the GPU."""
    line = s.rig.dispatcher.turns.line
    for place, ends_well in enumerate((True, False)):
        name = f"large-{place}.png"
        picture(s.rig.dirs(a).input / name, ("teal", "plum")[place])
        s.link.hold("PUT ")
        prompt_id = await s.rig.submit(loaded(name), a)
        await s.link.caught()
        before_s, since_s, key = line.virtual_s(a), monotonic_s(), await s.key(prompt_id, a)
        assert s.member.job == key
        await asyncio.sleep(0.3)
        least_s = monotonic_s() - since_s
        if ends_well:
            s.link.let_go()
        else:
            await s.rig.cancel(prompt_id, a)
        job, _ = await s.rig.final(prompt_id, a)
        s.link.let_go()
        await s.rig.eventually(lambda: not s.rig.dispatcher.turns.placed)
        assert job.state is (JobState.SUCCEEDED if ends_well else JobState.CANCELLED)
        assert line.virtual_s(a) - before_s >= least_s + job.gpu_ms / 1000
        assert (job.gpu_ms == 0) is not ends_well


async def an_older_pack_is_kept_for_its_job(s: Scene, a: int, b: int) -> None:
    """It does not say that it keeps files beside: the next job would take their place."""
    take = s.hub.workers.beat

    async def as_before(token: str, beat: Beat, *rest: Any) -> dict[str, object]:
        beat.shelf = Beat.model_fields["shelf"].default
        return await take(token, beat, *rest)

    s.hub.workers.beat = as_before  # type: ignore[method-assign, assignment]
    await s.rig.eventually(lambda: s.member.shelf == 0)
    first = await s.travelling(a)
    second = await s.rig.submit(saved(), b)
    key = await s.key(first, a)
    await s.rig.eventually(lambda: s.rig.dispatcher.reason(key) is None)
    assert s.member.job == key and not s.member.collecting
    s.link.let_go()
    for user, prompt_id in ((a, first), (b, second)):
        assert (await s.rig.final(prompt_id, user))[0].state is JobState.SUCCEEDED
    told = [prompt_id for prompt_id, _, _ in s.rig.heard.events if prompt_id in (first, second)]
    assert told.index(second) > told.index(first)
    (ended,) = [job for job, _ in [await s.rig.entry(first, a)]]
    later = (await s.rig.entry(second, b))[0]
    assert ended.ended_ms is not None and later.assigned_ms is not None and ended.ended_ms <= later.assigned_ms


TRIED = {
    "sent": (
        another_users_job_runs,
        either_may_be_cancelled,
        their_own_next_job_waits,
        a_drain_empties_it_of_what_renders_alone,
        its_inputs_are_there_before,
        who_sends_much_pays_for_it,
        an_older_pack_is_kept_for_its_job,
    ),
    "shared": (another_users_job_runs,),
}


@pytest.mark.parametrize("storage", TRIED)
async def test_beside(tmp_path: Path, begin: Begin, storage: str) -> None:
    """Each with users of its own."""
    async with scene(tmp_path, begin, storage, running_limit=2) as s:
        for place, attempt in enumerate(TRIED[storage]):
            await attempt(s, 2 * place + 1, 2 * place + 2)
