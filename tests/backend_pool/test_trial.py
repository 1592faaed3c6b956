"""Trial jobs: what they ask of a backend, when they run, and what a quarantine outlives."""

from pathlib import Path

from backend_pool.backends.change import Change
from backend_pool.backends.health import Health
from backend_pool.backends.trial import trial, trial_prompt
from backend_pool.job_state import JobState
from backend_pool.jobs.store import JobStore
from proxy.base.settings import Settings
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import saved
from tests.backend_pool.rig import QUICK, Heard, arm, assemble, disarm, engine_get, open_database, rig, running
from tests.engine.client import connect
from tests.engine.graphs import node


def test_the_trial_is_made_of_what_the_backend_has() -> None:
    """Blurring is what runs on the GPU; without pictures there is no trial."""
    three = trial_prompt({"EmptyImage": {}, "ImageBlur": {}, "PreviewImage": {}})
    two = trial_prompt({"EmptyImage": {}, "PreviewImage": {}})
    assert three is not None and three["3"]["inputs"]["images"] == ["2", 0]
    assert two is not None and two["3"]["inputs"]["images"] == ["1", 0]
    assert trial_prompt({"EmptyImage": {}}) is None


async def test_a_trial_leaves_nothing_behind(tmp_path: Path, start: Start) -> None:
    """No history, no picture; a broken backend is told from a busy one."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        member = r.pool.members[1]
        assert await trial(member, 10) is None
        assert await engine_get(engine.url, "/history") == {}
        assert [path.stat().st_size for path in (tmp_path / "engine-0/temp").iterdir()] == [0]
        await arm(engine.url, fault="cuda", node="ImageBlur")
        assert "CUDA error" in str(await trial(member, 10))


async def test_an_idle_backend_is_tried_now_and_then(tmp_path: Path, start: Start) -> None:
    """A GPU that broke while nobody used it is found before a job is."""
    engine = start()
    async with rig(tmp_path, engine.url, deep_probe_s=0.5) as r:
        member = r.pool.members[1]
        await r.eventually(lambda: member.idle_since_s is not None)
        await arm(engine.url, fault="cuda", node="ImageBlur")
        await r.eventually(lambda: member.health is Health.QUARANTINED)
        await disarm(engine.url)
        await r.eventually(lambda: member.idle)


async def test_a_backend_that_was_down_runs_a_trial_first(tmp_path: Path, start: Start) -> None:
    """One that came back broken gets no job."""
    engine = start()
    port = engine.url.rsplit(":", 1)[1]
    async with rig(tmp_path, engine.url) as r:
        engine.kill()
        await r.eventually(lambda: r.health() == [Health.DOWN])
        start("--port", port, name="engine-0")
        await r.eventually(lambda: r.health() == [Health.UP])
        assert (await engine_get(engine.url, "/engine"))["counters"]["jobs_run"] == 1
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def test_a_quarantine_holds_over_a_restart_and_can_be_lifted(tmp_path: Path, start: Start) -> None:
    """It is in the row; an operator's trust ends it without a trial."""
    engine = start()
    await arm(engine.url, fault="cuda", node="ImageBlur", count=1)
    async with rig(tmp_path, engine.url) as r:
        await r.pool.quarantine(r.pool.members[1], "tried by hand")
        await r.eventually(lambda: "trial job failed" in str(r.pool.members[1].error))
    settings = Settings.model_validate({"data_dir": tmp_path, **QUICK})
    db = open_database(tmp_path)
    r = assemble(tmp_path, listener=Heard(), store=JobStore(db, 10, 10), db=db, settings=settings)
    async with running(r):
        await r.eventually(lambda: r.health() == [Health.QUARANTINED])
        assert r.pool.members[1].row.quarantine == "tried by hand" and r.pool.members[1].row.quarantine_ms is not None
        await r.registry.change(1, Change(trust=True))
        await r.pool.refresh()
        await r.eventually(lambda: r.pool.members[1].idle)


async def test_a_busy_backend_is_not_judged(tmp_path: Path, start: Start) -> None:
    """Somebody else's prompt is in the way: the trial comes later, and its prompt is taken back."""
    engine = start()
    async with rig(tmp_path, engine.url, trial_timeout_s=0.3) as r, connect(engine.url) as other:
        member = r.pool.members[1]
        await arm(engine.url, fault="hang_job", node="EmptyImage", heeds_interrupt=True)
        foreign = await other.submit({"1": saved()["1"], "2": node("PreviewImage", images=["1", 0])})
        await other.until("execution_start")
        member.untried = True
        member.doubted.set()
        await r.eventually(lambda: bool(member.leftovers))
        assert member.row.quarantine is None
        await other.post("/interrupt", {"prompt_id": foreign})
        await r.eventually(lambda: member.idle)
