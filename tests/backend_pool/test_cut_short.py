"""A runner that is stopped just before its job's end is stored, and one that ends while the queue is read."""

import asyncio
from pathlib import Path

from backend_pool.job_state import JobState
from backend_pool.jobs.store import JobStore
from backend_pool.model import Job
from proxy.base.settings import Settings
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import saved
from tests.backend_pool.rig import QUICK, Heard, Rig, assemble, engine_get, open_database, rig, running


class HeldStore(JobStore):
    """Ends of jobs wait for `end`, and rows that were read are given out once `read` is set."""

    def __init__(self, *args: object, **more: object) -> None:
        super().__init__(*args, **more)  # type: ignore[arg-type]
        self.ending, self.end = asyncio.Event(), asyncio.Event()
        self.found, self.read = asyncio.Event(), asyncio.Event()

    async def finish(self, *args: object, **more: object) -> Job:
        """The end, later."""
        self.ending.set()
        await self.end.wait()
        return await super().finish(*args, **more)  # type: ignore[arg-type]

    async def on_backends(self) -> list[Job]:
        """What was so when it was asked."""
        rows = await super().on_backends()
        if rows:
            self.found.set()
            await self.read.wait()
        return rows


def held(root: Path) -> tuple[Rig, HeldStore]:
    """A pool over such a store; nothing runs yet."""
    settings = Settings.model_validate({"data_dir": root, **QUICK})
    db = open_database(root)
    store = HeldStore(db, 100, 100)
    return assemble(root, listener=Heard(), store=store, db=db, settings=settings), store


async def test_a_job_stopped_before_its_end_is_stored_is_not_rendered_again(tmp_path: Path, start: Start) -> None:
    """The server stops in that moment: the backend keeps what it has of the job, for the next one to read."""
    engine = start()
    first, store = held(tmp_path)
    store.read.set()
    async with running(first):
        await first.join(engine.url)
        prompt_id = await first.submit(saved())
        await store.ending.wait()
    async with rig(tmp_path) as second:
        job, document = await second.final(prompt_id)
        assert job.state is JobState.SUCCEEDED and len(document.outputs) == 1
        assert second.files() == ["output/ComfyUI_00001_.png"]
    assert (await engine_get(engine.url, "/engine"))["counters"]["jobs_run"] == 1


async def test_a_job_that_ends_while_the_queue_is_read_is_not_taken_up_again(tmp_path: Path, start: Start) -> None:
    """Its user sees it begin once."""
    engine = start()
    made, store = held(tmp_path)
    async with running(made):
        await made.join(engine.url)
        prompt_id = await made.submit(saved())
        await store.ending.wait()
        async with asyncio.timeout(10):
            await store.found.wait()
        store.end.set()
        await made.heard.ended(prompt_id)
        await made.eventually(lambda: all(member.idle for member in made.pool.members.values()))
        store.read.set()
        other = await made.submit(saved(), 2)
        await made.heard.ended(other)
        assert made.heard.kinds(prompt_id).count("execution_start") == 1
