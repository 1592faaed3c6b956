"""Embedded engines of a running server: revived when they die, retired when nobody asked for them, logs bounded."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from backend_pool.engine_keeper import LONGEST_PAUSE_S, STEADY_S, EngineKeeper, Fate
from backend_pool.engine_process import Engines
from backend_pool.health import Health
from backend_pool.job_state import JobState
from backend_pool.model import BackendMode
from proxy.base.log_file import LOG_BYTES
from proxy.base.processes import recorded
from proxy.base.settings import Settings
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import QUICK, Rig, rig


@asynccontextmanager
async def kept(root: Path, engines: int | None, *more: str) -> AsyncIterator[tuple[Rig, Engines]]:
    """A pool whose engines are looked after, as the server composes it."""
    for name in ("run", "logs"):
        (root / name).mkdir()
    args = ["--step-ms", "5", "--model-load-ms", "0"]
    settings = Settings.model_validate({"data_dir": root, **QUICK, "engines": engines, "engine_args": args})
    processes = Engines(settings, root / "run")
    try:
        async with rig(root) as r:
            keeper = EngineKeeper(settings, processes, r.registry, r.pool)
            await keeper.register()
            for url in more:
                await r.registry.add(url)
            await r.pool.refresh()
            r.tasks.start("engines", keeper.watch(), vital=True)
            yield r, processes
    finally:
        await processes.stop()


def pid(root: Path, number: int = 1) -> int:
    """The process of a running engine."""
    daemon = recorded(root / "run" / f"engine-{number}.json")
    assert daemon is not None
    return daemon.pid


async def test_an_engine_that_dies_is_back_and_its_job_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The row keeps its id and name, and gets the new address."""
    async with kept(tmp_path, 1) as (r, _):
        await r.eventually(lambda: r.pool.members[1].idle)
        before = r.pool.members[1]
        prompt_id = await r.submit(sampled(steps=200))
        await r.heard.until(prompt_id, "execution_start")
        killed = pid(tmp_path)
        os.kill(killed, signal.SIGKILL)
        job, _ = await r.final(prompt_id)
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
        rows = await r.registry.listing()
        assert [(row.id, row.name) for row in rows] == [(1, "engine-1")]
        assert rows[0].url != before.row.url and pid(tmp_path) != killed
        assert not Path(f"/proc/{killed}").exists()  # no zombie is left
    assert sum("engine died" in record.getMessage() for record in caplog.records) == 1


async def test_an_engine_that_cannot_start_is_not_tried_all_the_time(tmp_path: Path) -> None:
    """And the other one works on."""
    async with kept(tmp_path, 2) as (r, processes):
        await r.eventually(lambda: all(member.idle for member in r.pool.members.values()))
        processes._settings = processes._settings.model_copy(update={"engine_args": ["--nope"]})
        os.kill(pid(tmp_path, 1), signal.SIGKILL)
        await r.eventually(lambda: r.health() == [Health.DOWN, Health.UP])
        assert (await r.run(saved()))[0].backend_id == 2
        processes._settings = processes._settings.model_copy(update={"engine_args": []})
        await r.eventually(lambda: r.health() == [Health.UP, Health.UP])


def test_pauses_between_deaths_grow_to_a_cap() -> None:
    fate = Fate(since=0.0)
    pauses = []
    for now in range(9):
        pauses.append(fate.died(float(now)))
        fate.lives(float(now))
    assert pauses == [0, 1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    assert fate.died(8 + STEADY_S) == 0
    assert fate.died(8 + 2 * STEADY_S) == 1  # it did not start: no long life between the two


async def test_an_engine_nobody_asked_for_retires(tmp_path: Path, urls: list[str]) -> None:
    """When a real backend comes up; its job is finished first."""
    async with kept(tmp_path, None) as (r, _):
        await r.eventually(lambda: r.pool.members[1].idle)
        prompt_id = await r.submit(sampled(steps=200))
        await r.heard.until(prompt_id, "execution_start")
        await r.registry.add(urls[0])
        r.pool.wake()
        assert (await r.final(prompt_id))[0].backend_id == 1
        await r.eventually(lambda: [member.client.url for member in r.pool.members.values()] == [urls[0]])
        assert not list((tmp_path / "run").glob("engine-*"))
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def test_an_engine_that_was_asked_for_stays(tmp_path: Path, urls: list[str]) -> None:
    async with kept(tmp_path, 1, urls[0]) as (r, _):
        await r.eventually(lambda: r.health() == [Health.UP, Health.UP])
        seen = r.pool.members[1].seen_ms
        await r.eventually(lambda: r.pool.members[1].seen_ms != seen)
        assert [member.row.mode for member in r.pool.members.values()] == [BackendMode.ACTIVE] * 2


async def test_logs_are_bounded(tmp_path: Path) -> None:
    async with kept(tmp_path, 1) as (r, _):
        log = tmp_path / "logs" / "engine-1.log"
        with log.open("ab") as out:
            out.write(b"a line\n" * (LOG_BYTES // 7 + 1))
        await r.eventually(lambda: log.stat().st_size < LOG_BYTES)
