"""PostgreSQL stopped while jobs run, end and are cancelled, and answers of a database that never come."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from sqlmodel import Session, SQLModel

from backend_pool.job_state import JobState
from backend_pool.jobs.store import JobStore
from proxy.base.database import Database, sqlite_url
from proxy.base.errors import DatabaseUnavailable
from proxy.base.settings import Settings
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import QUICK, Heard, Rig, arm, assemble, engine_get, running
from tests.postgres import Postgres

T = TypeVar("T")


def over(db: Database, root: Path) -> Rig:
    """A rig on that database, emptied."""
    SQLModel.metadata.drop_all(db.writer)
    SQLModel.metadata.create_all(db.writer)
    settings = Settings.model_validate({"data_dir": root, **QUICK})
    return assemble(root, listener=Heard(), store=JobStore(db, 100, 100), db=db, settings=settings)


async def test_postgresql_gone_for_a_while_loses_nothing(
    tmp_path: Path, start: Start, postgres_server: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """One job ends meanwhile, one waits, one is to be cancelled: refused, and done once it is back."""
    engine = start()
    made = over(Database(postgres_server.url), tmp_path)
    async with running(made):
        await made.join(engine.url)
        ends, waits = await made.submit(sampled(steps=40)), await made.submit(saved(), user_id=2)
        await made.heard.until(ends, "progress")
        await asyncio.to_thread(postgres_server.stop)
        try:
            with pytest.raises(DatabaseUnavailable):
                await made.submit(saved(), user_id=3)
            with pytest.raises(DatabaseUnavailable):
                await made.cancel(waits, user_id=2)
            async with asyncio.timeout(60):
                while await engine_get(engine.url, "/history") == {}:
                    await asyncio.sleep(0.05)
            await made.eventually(lambda: "job could not be written, trying again" in caplog.text)
            assert "execution_success" not in made.heard.kinds(ends)
        finally:
            await asyncio.to_thread(postgres_server.start)
        job, _ = await made.final(ends)
        assert job.state is JobState.SUCCEEDED and job.attempt == 1
        assert made.heard.kinds(ends).count("execution_success") == 1
        assert (await made.final(waits, user_id=2))[0].state is JobState.SUCCEEDED
        assert (await engine_get(engine.url, "/engine"))["counters"]["jobs_run"] == 2
        assert made.tasks.dead == {}
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == len(set(lines)) + ("the database does not answer" in lines[1:])  # of readers and of writers
    assert "Traceback" not in caplog.text


class Forgetful(Database):
    """Does what it is told and, while `loses`, says of every second write that nobody answered."""

    loses = False
    _writes = 0

    async def write(self, work: Callable[[Session], T]) -> T:
        """As the real one."""
        result = await super().write(work)
        self._writes += 1
        if self.loses and self._writes % 2:
            raise DatabaseUnavailable("The database did not answer.", "the line broke after the commit")
        return result


@pytest.mark.parametrize(
    ("fault", "attempts"),
    [({"fault": "drop_ws", "node": "SaveImage"}, 1), ({"fault": "oom", "node": "KSampler"}, 2)],
    ids=["collecting", "again"],
)
async def test_what_was_stored_without_an_answer_is_not_stored_twice(
    tmp_path: Path, start: Start, fault: dict[str, object], attempts: int
) -> None:
    """Every change of state of a job, its end included: its owner has not lost it, and tells its user."""
    engine = start()
    db = Forgetful(sqlite_url(tmp_path / "cluster.db"))
    made = over(db, tmp_path)
    async with running(made):
        await made.join(engine.url)
        await arm(engine.url, **fault)
        prompt_id = await made.submit(sampled(steps=40))
        db.loses = True
        job, _ = await made.final(prompt_id)
        db.loses = False
        assert job.state is JobState.SUCCEEDED and job.attempt == attempts
        states = [entry[1] for entry in job.trail]
        assert states.count("succeeded") == 1 and states.count("assigned") == attempts
        assert made.heard.kinds(prompt_id).count("execution_success") == 1
        assert made.files() == ["output/ComfyUI_00001_.png"]
        assert (await engine_get(engine.url, "/engine"))["counters"]["jobs_run"] == attempts


async def test_a_job_put_back_without_an_answer_runs_elsewhere_once(tmp_path: Path, start: Start) -> None:
    """Its backend dies; that it waits again is stored, and nobody says so."""
    first, second = start(), start()
    db = Forgetful(sqlite_url(tmp_path / "cluster.db"))
    made = over(db, tmp_path)
    async with running(made):
        await made.join(first.url, second.url)
        await arm(first.url, fault="crash", at="mid_step")
        prompt_id = await made.submit(sampled())
        db.loses = True
        job, _ = await made.final(prompt_id)
        db.loses = False
        assert job.state is JobState.SUCCEEDED and job.backend_id == 2 and job.attempt == 2
        assert made.heard.kinds(prompt_id).count("execution_success") == 1
        assert made.files() == ["output/ComfyUI_00001_.png"]
