"""A job's way when something goes wrong, each time with the real fault in a real engine."""

import asyncio
from pathlib import Path

import pytest

from backend_pool.backends.health import Health
from backend_pool.files.user_folder import user_folder
from backend_pool.job_state import JobState
from backend_pool.model import BackendMode
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import loaded, previewed, sampled, saved
from tests.backend_pool.rig import arm, disarm, engine_get, rig
from tests.backend_pool.test_way import picture
from tests.engine.graphs import node


async def test_a_failing_node_fails_the_job_with_its_error(tmp_path: Path, start: Start) -> None:
    """The error names the node in the user's terms, and what was made before it stays."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        picture(r.dirs(1).input / "photo.png")
        await arm(engine.url, fault="error", node="ImageInvert", message="broken on purpose")
        prompt = loaded("photo.png") | {"9": node("PreviewImage", images=["1", 0])}
        job, document = await r.run(prompt)
        error = r.heard.first(job.prompt_id, "execution_error")
        assert job.state is JobState.FAILED
        assert error["prompt_id"] == job.prompt_id and error["node_type"] == "ImageInvert"
        assert "broken on purpose" in error["exception_message"] and "cluster" not in str(error)
        assert document.messages[-1] == ["execution_error", error]
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def test_what_only_the_backend_can_judge_fails_the_job(tmp_path: Path, start: Start) -> None:
    """Its words reach the user as the job's error, with the node."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        prompt = saved()
        prompt["1"]["inputs"]["width"] = 10**9
        job, _ = await r.run(prompt)
        error = r.heard.first(job.prompt_id, "execution_error")
        assert job.state is JobState.FAILED and job.attempt == 1
        assert error["exception_type"] == "PromptRefused" and "width" in error["exception_message"]
        assert error["node_id"] == "1" and error["node_type"] == "EmptyImage"


@pytest.mark.parametrize("status", [500, 503, 403, 429])
async def test_a_backend_that_refuses_for_a_while_gets_the_job_later(tmp_path: Path, start: Start, status: int) -> None:
    """Its own trouble is no verdict on the prompt."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        await arm(engine.url, fault="refuse", status=status, count=2)
        job, _ = await r.run(saved())
        assert job.state is JobState.SUCCEEDED and r.files() == ["output/ComfyUI_00001_.png"]


async def test_a_backend_that_always_refuses_hands_the_job_on(tmp_path: Path, start: Start) -> None:
    """Another one runs it."""
    bad, good = start(), start()
    async with rig(tmp_path, bad.url, good.url) as r:
        await arm(bad.url, fault="refuse", status=503, count=1000)
        job, _ = await r.run(saved())
        assert job.state is JobState.SUCCEEDED and job.backend_id == 2


async def test_a_lost_answer_does_not_render_twice(tmp_path: Path, start: Start) -> None:
    """An unsure submit looks into queue and history before it resends: unsure is never dead."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        await arm(engine.url, fault="lose_answer")
        job, _ = await r.run(saved())
        assert job.state is JobState.SUCCEEDED and job.attempt == 1
        assert (await engine_get(engine.url, "/engine"))["counters"]["jobs_run"] == 1


async def test_a_dropped_socket_costs_no_result(tmp_path: Path, start: Start) -> None:
    """`executed` is told all the same: many clients read nothing else (client demands B7)."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        await arm(engine.url, fault="drop_ws", node="SaveImage")
        job, document = await r.run(saved())
        assert job.state is JobState.SUCCEEDED and job.attempt == 1
        executed = [data for kind, data in r.heard.of(job.prompt_id) if kind == "executed"]
        assert [data["output"] for data in executed] == [document.outputs["2"]]
        assert executed[0]["node"] == executed[0]["display_node"] == "2"
        assert r.heard.kinds(job.prompt_id)[-2:] == ["execution_success", "executing"]


@pytest.mark.parametrize(
    "at", ["before_submit_answer", "after_submit", "mid_step", "before_executed", "before_history"]
)
async def test_a_killed_engine_s_job_finishes_elsewhere_once(tmp_path: Path, start: Start, at: str) -> None:
    """Wherever it dies: one final state, the file once, nothing of the first attempt left."""
    first, second = start(), start()
    async with rig(tmp_path, first.url, second.url) as r:
        await arm(first.url, fault="crash", at=at)
        job, document = await r.run(sampled())
        assert job.state is JobState.SUCCEEDED and job.backend_id == 2
        assert r.files() == ["output/ComfyUI_00001_.png"]
        assert document.outputs["9"]["images"][0]["filename"] == "ComfyUI_00001_.png"
        assert r.heard.kinds(job.prompt_id).count("execution_success") == 1
        ends = [data for kind, data in r.heard.of(job.prompt_id) if kind == "executing" and data["node"] is None]
        assert len(ends) == 1
        await r.eventually(lambda: r.health()[0] is Health.DOWN)


async def test_a_job_that_kills_every_engine_fails_clearly(tmp_path: Path, start: Start) -> None:
    """Three backends, then a message that says so; the files of no attempt stay."""
    engines = [start() for _ in range(3)]
    async with rig(tmp_path, *(engine.url for engine in engines)) as r:
        for engine in engines:
            await arm(engine.url, fault="crash", node="KSampler")
        job, document = await r.run(sampled())
        error = r.heard.first(job.prompt_id, "execution_error")
        assert job.state is JobState.FAILED and job.attempt == 3
        assert error["exception_type"] == "JobKillsBackends" and "3 backends" in error["exception_message"]
        assert document.messages == [["execution_error", error]]
        assert r.files() == []


async def test_an_engine_that_was_away_is_waited_for(tmp_path: Path, start: Start) -> None:
    """The only backend is down when the job comes: it waits, no attempt is used up."""
    engine = start()
    port = engine.url.rsplit(":", 1)[1]
    async with rig(tmp_path, engine.url) as r:
        engine.kill()
        prompt_id = await r.submit(saved())
        await r.eventually(lambda: r.health() == [Health.DOWN])
        start("--port", port, name="engine-0")
        job, _ = await r.final(prompt_id)
        assert job.state is JobState.SUCCEEDED and job.attempt == 1


async def test_a_restarted_engine_gets_its_job_again(tmp_path: Path, start: Start) -> None:
    """It comes back before anybody called it down, and knows nothing."""
    engine = start()
    port = engine.url.rsplit(":", 1)[1]
    async with rig(tmp_path, engine.url, backend_down_after_s=30) as r:
        await arm(engine.url, fault="hang_job", node="KSampler")
        prompt_id = await r.submit(sampled())
        await r.heard.until(prompt_id, "execution_start")
        engine.kill()
        start("--port", port, name="engine-0")
        job, _ = await r.final(prompt_id)
        assert job.state is JobState.SUCCEEDED and job.attempt == 2
        assert r.files() == ["output/ComfyUI_00001_.png"]


async def test_a_hung_server_loses_its_job(tmp_path: Path, start: Start) -> None:
    """It takes connections and answers nothing; the job goes elsewhere, and what it had is ended when it returns."""
    hung, good = start(), start()
    async with rig(tmp_path, hung.url, good.url) as r:
        await arm(hung.url, fault="hang_server", seconds=6, node="KSampler", step=1)
        job, _ = await r.run(sampled(steps=60))
        assert job.state is JobState.SUCCEEDED and job.backend_id == 2
        member = r.pool.members[1]
        await r.eventually(lambda: member.idle)
        queue = await engine_get(hung.url, "/queue")
        assert queue == {"queue_running": [], "queue_pending": []}
        assert r.files() == ["output/ComfyUI_00001_.png"]


@pytest.mark.parametrize("fault", [{"fault": "truncate_view"}, {"fault": "slow_view", "bytes_per_s": 200.0}])
async def test_a_bad_transfer_is_repeated(tmp_path: Path, start: Start, fault: dict[str, object]) -> None:
    """The picture arrives whole or not at all."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        await arm(engine.url, **fault)
        job, document = await r.run(saved())
        assert job.state is JobState.SUCCEEDED and r.files() == ["output/ComfyUI_00001_.png"]
        assert r.heard.first(job.prompt_id, "executed")["output"] == document.outputs["2"]
        assert (tmp_path / "engine-0/output" / user_folder(f"{1:020x}") / "ComfyUI_00001_.png").is_file()


async def test_a_file_that_cannot_be_had_fails_the_job(tmp_path: Path, start: Start) -> None:
    """With a clear message, after some tries and without rendering again; no part of it stays."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        await arm(engine.url, fault="truncate_view", count=1000)
        job, _ = await r.run(saved())
        error = r.heard.first(job.prompt_id, "execution_error")
        assert job.state is JobState.FAILED and job.attempt == 1 and error["exception_type"] == "FileGone"
        assert (await engine_get(engine.url, "/engine"))["counters"]["jobs_run"] == 1
        assert not list(tmp_path.glob("users/**/*.part")) and r.files() == []
        await disarm(engine.url)
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def test_a_removed_backend_s_job_goes_elsewhere(tmp_path: Path, start: Start) -> None:
    """And the removed one is told to stop."""
    first, second = start(), start()
    async with rig(tmp_path, first.url, second.url) as r:
        await arm(first.url, fault="hang_job", node="KSampler", heeds_interrupt=True)
        prompt_id = await r.submit(sampled())
        await r.heard.until(prompt_id, "execution_start")
        await r.registry.remove(1)
        r.pool.wake()
        job, _ = await r.final(prompt_id)
        assert job.state is JobState.SUCCEEDED and job.backend_id == 2
        async with asyncio.timeout(30):
            while (await engine_get(first.url, "/queue"))["queue_running"]:
                await asyncio.sleep(0.05)


async def test_a_drained_backend_finishes_and_gets_nothing_new(tmp_path: Path, start: Start) -> None:
    """Draining is for updates without losses."""
    first, second = start(), start()
    async with rig(tmp_path, first.url, second.url) as r:
        prompt_id = await r.submit(sampled(steps=40))
        await r.heard.until(prompt_id, "execution_start")
        await r.registry.set_mode(1, BackendMode.DRAINING)
        await r.pool.refresh()
        assert (await r.final(prompt_id))[0].backend_id == 1
        jobs = [(await r.run(saved()))[0] for _ in range(2)]
        assert [job.backend_id for job in jobs] == [2, 2]


async def test_a_preview_that_is_gone_does_not_lose_the_rest(tmp_path: Path, start: Start) -> None:
    """The job is run by a backend whose temp is emptied under it: its cached preview cannot be fetched again."""
    engine = start()
    async with rig(tmp_path, engine.url) as r:
        prompt = previewed()
        _, document = await r.run(prompt)
        for path in (tmp_path / "engine-0/temp").iterdir():
            path.unlink()
        again, repeated = await r.run(prompt)
        assert again.state is JobState.SUCCEEDED and repeated.outputs == document.outputs
        assert len(r.files()) == 1
