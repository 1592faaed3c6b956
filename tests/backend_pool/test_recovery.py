"""kill -9 of the process that carries jobs, at every labelled point; another pool finishes what it left.

That one is in the test's own process: it knows no more than another would, and costs no start.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backend_pool.backends.registry import Registry
from backend_pool.job_state import JobState
from backend_pool.jobs.queries import JobQueries
from backend_pool.jobs.store import JobStore
from backend_pool.model import JsonDict
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.pool_process import LABELS, carry, main
from tests.backend_pool.rig import WAIT_S, arm, disarm, engine_get, open_database, submission
from tests.engine.client import connect
from tests.engines import Engine, start_engine
from tests.forked import Forked


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine that no test kills; every sampled job is new to it."""
    engine = start_engine(tmp_path_factory.mktemp("lasting"))
    yield engine
    engine.kill()


async def jobs_run(engine: Engine) -> int:
    """How many jobs an engine has run."""
    return int((await engine_get(engine.url, "/engine"))["counters"]["jobs_run"])


@contextmanager
def process(root: Path, label: str = "") -> Iterator[Forked]:
    """A pool process, killed in the end if it still runs."""
    child = Forked(carry, str(root), label, log=root / "process.log")
    try:
        yield child
    finally:
        child.kill()
        child.wait(WAIT_S)


async def status(child: Forked) -> int:
    """How it ended."""
    return await asyncio.to_thread(child.wait, WAIT_S)


async def carried_on(root: Path) -> None:
    """A pool that starts on what is there and ends when no job is left."""
    async with asyncio.timeout(WAIT_S):
        await main(root, "")


async def queue(root: Path, engine: Engine, prompt: JsonDict) -> str:
    """A job in a database of its own, and a backend for it."""
    db = open_database(root)
    order = submission(prompt)
    await Registry(db).add(engine.url)
    await JobStore(db, 10, 10).submit(order)
    await asyncio.to_thread(db.close)
    return order.prompt_id


async def outcome(root: Path, prompt_id: str) -> tuple[JobState, JsonDict, list[str]]:
    """State, outputs, and the states the job went through."""
    db = open_database(root)
    found = await JobQueries(db).one(1, prompt_id)
    await asyncio.to_thread(db.close)
    assert found is not None
    return found[0].state, found[1].outputs, [entry[1] for entry in found[0].trail]


async def quarantine(root: Path) -> str | None:
    """Why the backend is in quarantine, by its row."""
    db = open_database(root)
    (row,) = await Registry(db).listing()
    await asyncio.to_thread(db.close)
    return row.quarantine


def pictures(root: Path) -> list[str]:
    """Everything below the user's directories, partial files too."""
    return sorted(str(path.relative_to(root / "users/1")) for path in root.glob("users/1/**/*") if path.is_file())


@pytest.mark.parametrize("label", LABELS)
async def test_a_second_pool_finishes_the_job(tmp_path: Path, lasting: Engine, label: str) -> None:
    """One final state, the file once, rendered once: the engine lives on, so what it has is taken up."""
    ran = await jobs_run(lasting)
    prompt_id = await queue(tmp_path, lasting, sampled(steps=80))
    if label == "collecting":  # the file comes at the end only when its event was missed
        await arm(lasting.url, fault="drop_ws", node="SaveImage")
    with process(tmp_path, label) as first:
        assert await status(first) == -signal.SIGKILL, (tmp_path / "process.log").read_text()
    await carried_on(tmp_path)
    state, outputs, trail = await outcome(tmp_path, prompt_id)
    assert state is JobState.SUCCEEDED
    assert trail.count("succeeded") == 1 and trail.count("assigned") == 1
    assert outputs["9"]["images"] == [{"filename": "ComfyUI_00001_.png", "subfolder": "", "type": "output"}]
    assert pictures(tmp_path) == ["output/ComfyUI_00001_.png"]
    assert await jobs_run(lasting) - ran == 1


async def test_a_submitted_job_that_has_not_begun_is_found_again(tmp_path: Path, start: Start) -> None:
    """Killed while the prompt waits in the backend's own queue behind somebody else's."""
    engine = start()
    async with connect(engine.url) as other:
        await arm(engine.url, fault="hang_job", node="KSampler")
        foreign = await other.submit(sampled())
        await other.until("execution_start")
        prompt_id = await queue(tmp_path, engine, saved())
        with process(tmp_path) as first:
            async with asyncio.timeout(WAIT_S):
                while not (await engine_get(engine.url, "/queue"))["queue_pending"]:
                    await asyncio.sleep(0.02)
            first.kill()
        async with asyncio.TaskGroup() as group:
            group.create_task(carried_on(tmp_path))
            await other.post("/interrupt", {"prompt_id": foreign})
            async with other.http.delete(f"{engine.url}/engine/faults"):
                pass
    state, _, trail = await outcome(tmp_path, prompt_id)
    assert state is JobState.SUCCEEDED and trail.count("assigned") == 1
    assert pictures(tmp_path) == ["output/ComfyUI_00001_.png"]


@pytest.mark.parametrize("label", ["before again", "after again"])
async def test_killed_while_memory_is_freed(tmp_path: Path, lasting: Engine, label: str) -> None:
    """The next process frees it, or makes the second attempt: the user sees one run and one picture."""
    ran = await jobs_run(lasting)
    prompt_id = await queue(tmp_path, lasting, sampled())
    await arm(lasting.url, fault="oom", node="KSampler")
    with process(tmp_path, label) as first:
        assert await status(first) == -signal.SIGKILL, (tmp_path / "process.log").read_text()
    await carried_on(tmp_path)
    state, _, trail = await outcome(tmp_path, prompt_id)
    assert state is JobState.SUCCEEDED and trail.count("assigned") == 2
    assert pictures(tmp_path) == ["output/ComfyUI_00001_.png"]
    assert await jobs_run(lasting) - ran == 2


@pytest.mark.parametrize("label", ["before requeue", "after requeue"])
async def test_killed_while_a_backend_is_quarantined(tmp_path: Path, start: Start, label: str) -> None:
    """The quarantine is stored before the job is back in the queue; once a trial succeeds it runs, once."""
    engine = start()
    prompt_id = await queue(tmp_path, engine, sampled())
    await arm(engine.url, fault="cuda", node="KSampler")
    with process(tmp_path, label) as first:
        assert await status(first) == -signal.SIGKILL, (tmp_path / "process.log").read_text()
    assert await quarantine(tmp_path) is not None
    await disarm(engine.url)
    await carried_on(tmp_path)
    state, _, trail = await outcome(tmp_path, prompt_id)
    assert state is JobState.SUCCEEDED and trail.count("assigned") == 2
    assert pictures(tmp_path) == ["output/ComfyUI_00001_.png"]
    assert await quarantine(tmp_path) is None


@pytest.mark.parametrize(("label", "attempts"), [("started", 1), ("noted", 2), ("executed", 2)])
async def test_process_and_engine_die_together(tmp_path: Path, start: Start, label: str, attempts: int) -> None:
    """The engine comes back empty: the job is rendered again, and the first attempt's files are gone.

    A job that was never written as running is simply submitted again.
    """
    engine = start()
    port = engine.url.rsplit(":", 1)[1]
    prompt_id = await queue(tmp_path, engine, sampled(steps=80))
    with process(tmp_path, label) as first:
        assert await status(first) == -signal.SIGKILL
    engine.kill()
    start("--port", port, name="engine-0")
    await carried_on(tmp_path)
    state, outputs, trail = await outcome(tmp_path, prompt_id)
    assert state is JobState.SUCCEEDED and trail.count("assigned") == attempts
    assert len(outputs["9"]["images"]) == 1
    assert pictures(tmp_path) == [f"output/{outputs['9']['images'][0]['filename']}"]


@pytest.mark.parametrize("label", ["before finish", "after finish"])
async def test_what_is_home_is_never_rendered_again(tmp_path: Path, start: Start, label: str) -> None:
    """Its files came, the process died, and so did the backend for good."""
    engine = start()
    prompt_id = await queue(tmp_path, engine, saved())
    await arm(engine.url, fault="drop_ws", node="SaveImage")  # so that it goes through collecting
    with process(tmp_path, label) as first:
        assert await status(first) == -signal.SIGKILL
    engine.kill()
    if label == "before finish":  # as if it had been killed once the file had its name
        (tmp_path / "users/1/output/.incoming").mkdir(exist_ok=True)
        (tmp_path / "users/1/output/.incoming/1-0.x.part").touch()
    await carried_on(tmp_path)
    state, _, trail = await outcome(tmp_path, prompt_id)
    assert state is JobState.SUCCEEDED and trail.count("assigned") == 1
    assert pictures(tmp_path) == ["output/ComfyUI_00001_.png"]
