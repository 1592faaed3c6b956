"""Embedded engines as managed instances of a running pool: revived, put to sleep and woken, retired, adopted."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backend_pool.backends.health import Health
from backend_pool.backends.member import Member
from backend_pool.backends.phase import Phase
from backend_pool.forecasts import outlooks
from backend_pool.job_state import JobState
from backend_pool.jobs.store import JobStore
from backend_pool.managed.engine_recipe import EngineRecipe
from backend_pool.managed.instances import Instances
from backend_pool.managed.keeper import Keeper
from backend_pool.managed.rows import ManagedRows
from backend_pool.managed.stand_in import StandIn
from backend_pool.managed.supervisor import Limits
from backend_pool.model import BackendMode
from backend_pool.offers.store import OfferStore
from proxy.base.errors import ConfigError
from proxy.base.log_file import LOG_BYTES
from proxy.base.processes import recorded
from proxy.base.settings import Settings
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import QUICK, Heard, Rig, assemble, open_database, running

ALL = Limits(start_timeout_s=30.0)
SLEEPY = Limits(idle_s=1.0, cooldown_s=0.2, start_timeout_s=30.0)


@dataclass
class Kept:
    """A pool whose engines are looked after, as the server composes it."""

    root: Path
    rig: Rig
    keeper: Keeper
    recipe: EngineRecipe

    def pid(self, number: int = 1) -> int:
        """The process of a running engine."""
        daemon = recorded(self.root / "run" / f"engine-{number}.json")
        assert daemon is not None
        return daemon.pid

    def phases(self) -> list[Phase]:
        """Of the instances, as the pool was told."""
        members = sorted(self.rig.pool.members.values(), key=lambda member: member.row.name)
        return [member.managed.state for member in members if member.managed is not None]

    def member(self, number: int = 1) -> Member:
        """That instance in the pool: which of two gets the first row depends on which starts quicker."""
        name = f"engine-{number}"
        return next(member for member in self.rig.pool.members.values() if member.row.name == name)

    async def phase(self, *phases: Phase) -> None:
        """Wait until they are these."""
        await self.rig.eventually(lambda: self.phases() == list(phases))

    def error(self) -> str:
        """What the pool says of the first one."""
        return str(self.member().error)


@asynccontextmanager
async def kept(
    root: Path, engines: int, limits: Limits = ALL, *, leave: bool = False, **chosen: Any
) -> AsyncIterator[Kept]:
    """`leave`: its processes outlive it, as after a kill."""
    for name in ("run", "logs"):
        (root / name).mkdir(exist_ok=True)
    args = ["--step-ms", "5", "--model-load-ms", "0", "--faults"]
    settings = Settings.model_validate({"data_dir": root, **QUICK, "engine_args": args, **chosen})
    recipe = EngineRecipe(settings, root / "run")
    instances = Instances(recipe, root / "run", root / "logs", stop_timeout_s=0.5)
    try:
        db = open_database(root)
        store = JobStore(db, settings.queue_limit, settings.history_limit)
        r = assemble(root, listener=Heard(), store=store, db=db, settings=settings)
        async with running(r):
            offers = OfferStore(root)
            rows = ManagedRows(r.db, "engine")
            keeper = Keeper(instances, rows, r.pool, offers, r.tasks, poll_s=0.1)
            await keeper.register([f"engine-{number}" for number in range(1, engines + 1)], limits)
            await keeper.started()
            await r.pool.refresh()
            r.tasks.start("engines", keeper.watch(), vital=True)
            yield Kept(root, r, keeper, recipe)
            assert r.tasks.dead == {}
    finally:
        if not leave:
            await instances.forget_all()


async def test_one_that_dies_is_back_and_its_job_runs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The row keeps its id and name, and gets the new address."""
    async with kept(tmp_path, 1) as k:
        r = k.rig
        await r.eventually(lambda: r.pool.members[1].idle)
        before = r.pool.members[1]
        prompt_id = await r.submit(sampled(steps=200))
        await r.heard.until(prompt_id, "execution_start")
        killed = k.pid()
        os.kill(killed, signal.SIGKILL)
        job, _ = await r.final(prompt_id)
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
        rows = await r.registry.listing()
        assert [(row.id, row.name) for row in rows] == [(1, "engine-1")]
        assert rows[0].url != before.row.url and k.pid() != killed
        assert not Path(f"/proc/{killed}").exists()  # no zombie is left
    assert sum("instance died" in record.getMessage() for record in caplog.records) == 1


async def test_one_that_cannot_start_is_not_tried_all_the_time(tmp_path: Path) -> None:
    """The other one works on, and what is wrong is said."""
    async with kept(tmp_path, 2) as k:
        r = k.rig
        await r.eventually(lambda: all(member.idle for member in r.pool.members.values()))
        k.recipe.arguments = ("--nope",)
        os.kill(k.pid(1), signal.SIGKILL)
        both = (k.member(1), k.member(2))
        await r.eventually(lambda: [m.health for m in both] == [Health.DOWN, Health.UP] and "--nope" in k.error())
        assert (await r.run(saved()))[0].backend_id == k.member(2).key
        managed = k.member().managed
        assert managed is not None and managed.state is Phase.CRASHED and managed.deaths >= 1
        k.recipe.arguments = ()
        await r.eventually(lambda: r.health() == [Health.UP, Health.UP])


async def test_one_with_nothing_to_do_sleeps_and_a_job_wakes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it offers stays on show meanwhile, and the job waits rather than fails; its user is told what for."""
    monkeypatch.setattr(outlooks, "EVERY_S", 0.1)
    monkeypatch.setattr(outlooks, "PART", 1.0)  # else a slow machine makes none while the engine wakes
    async with kept(tmp_path, 1, SLEEPY) as k:
        r = k.rig
        await k.phase(Phase.RUNNING)
        await r.eventually(lambda: r.pool.members[1].idle)
        nodes = set(r.pool.info.union)
        ran = k.pid()
        await k.phase(Phase.ASLEEP)
        assert r.health() == [Health.ASLEEP]
        await r.eventually(lambda: not Path(f"/proc/{ran}").exists())
        await r.eventually(lambda: not list((tmp_path / "run").glob("engine-*.json")))
        assert set(r.pool.info.union) == nodes
        assert r.pool.members[1].wanted_since_s is None
        told: set[str] = set()
        forecasts = r.dispatcher.outlooks
        forecasts.on_change.append(lambda _users: told.update(outlook.reason for _, outlook in forecasts.of_user(1)))
        elsewhere = await r.submit(saved(), 2, labels=["nowhere"])  # which wakes nobody
        prompt_id = await r.submit(sampled(steps=3))
        job, _ = await r.final(prompt_id)
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
        assert "a GPU is waking up" in told
        assert r.pool.members[1].wanted_since_s is None
        await k.phase(Phase.ASLEEP)
        assert (await r.entry(elsewhere, 2))[0].state is JobState.QUEUED


async def test_one_that_is_known_stays_asleep_at_the_next_start(tmp_path: Path) -> None:
    """A server that starts again does not start all of its GPUs; then as many wake as jobs may run on."""
    asleep = [Phase.ASLEEP] * 3
    async with kept(tmp_path, 3, SLEEPY) as k:
        await k.rig.eventually(lambda: all(member.info for member in k.rig.pool.members.values()))
        await k.phase(*asleep)
        nodes = set(k.rig.pool.info.union)
    async with kept(tmp_path, 3, SLEEPY) as k:
        await k.phase(*asleep)
        await k.rig.eventually(lambda: set(k.rig.pool.info.union) == nodes)
        assert k.phases() == asleep
        # The first lasts until the other user's runs: after it the second one may use another, too.
        orders = ((1, 800), (1, 100), (2, 300))
        jobs = [(await k.rig.submit(sampled(steps=steps), user), user) for user, steps in orders]
        for prompt_id, _ in jobs[::2]:
            await k.rig.heard.until(prompt_id, "execution_start")
        assert sorted(k.phases()) == [Phase.ASLEEP, Phase.RUNNING, Phase.RUNNING]  # one at a time for each user
        for prompt_id, user in jobs:
            assert (await k.rig.final(prompt_id, user))[0].state is JobState.SUCCEEDED


async def test_a_restart_that_is_wanted_waits_for_the_job(tmp_path: Path) -> None:
    async with kept(tmp_path, 1) as k:
        r = k.rig
        await r.eventually(lambda: r.pool.members[1].idle)
        before = k.pid()
        prompt_id = await r.submit(sampled(steps=100))
        await r.heard.until(prompt_id, "execution_start")
        r.pool.members[1].restart_wanted.set()
        await k.phase(Phase.STOPPING)
        job, _ = await r.final(prompt_id)
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
        await r.eventually(lambda: r.pool.members[1].idle)
        assert k.pid() != before
        assert not r.pool.members[1].restart_wanted.is_set()


async def test_one_that_hangs_is_started_anew(tmp_path: Path) -> None:
    """It runs and takes connections, but answers nobody: its probes have given it up."""
    async with kept(tmp_path, 1) as k:
        r = k.rig
        await r.eventually(lambda: r.pool.members[1].idle)
        before = k.pid()
        os.kill(before, signal.SIGSTOP)
        await r.eventually(lambda: not Path(f"/proc/{before}").exists())
        await r.eventually(lambda: r.pool.members[1].idle)
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def test_no_engine_at_all_is_an_error_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = EngineRecipe.prepare

    def broken(self: EngineRecipe, name: str) -> object:
        self.arguments = ("--nope",)
        return prepared(self, name)

    monkeypatch.setattr(EngineRecipe, "prepare", broken)
    with pytest.raises(ConfigError, match=r"engine-1 did not start. Its log: .*engine-1.log"):
        async with kept(tmp_path, 1):
            pass


async def test_a_full_disk_leaves_no_process_and_is_said(tmp_path: Path) -> None:
    """The record cannot be written: what was started for it is ended."""
    async with kept(tmp_path, 1) as k:
        r = k.rig
        await r.eventually(lambda: r.pool.members[1].idle)
        blocked = tmp_path / "run" / "engine-1.part"
        blocked.mkdir()
        os.kill(k.pid(), signal.SIGKILL)
        await r.eventually(lambda: r.health() == [Health.DOWN] and "cannot be started" in k.error())
        assert engines_of(tmp_path) == []
        blocked.rmdir()
        await r.eventually(lambda: r.health() == [Health.UP])
        assert engines_of(tmp_path) == [k.pid()]


def engines_of(root: Path) -> list[int]:
    """Processes with that directory in their command."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                command = (folder / "cmdline").read_bytes()
                if str(root).encode() in command and b"backend_pool.engine" in command:
                    found.append(int(folder.name))
    return found


async def test_an_engine_nobody_asked_for_retires(tmp_path: Path, urls: list[str]) -> None:
    """When a real backend comes up; its job is finished first."""
    async with kept(tmp_path, 1) as k:
        r = k.rig
        stand_in = StandIn(k.keeper, r.registry, r.pool)
        await r.registry.set_mode(1, BackendMode.DRAINING)  # as one that was killed while it retired
        await stand_in.revive()
        assert [row.mode for row in await r.registry.listing()] == [BackendMode.ACTIVE]
        r.tasks.start("stand-in", looking(stand_in))
        await r.eventually(lambda: r.pool.members[1].idle)
        prompt_id = await r.submit(sampled(steps=200))
        await r.heard.until(prompt_id, "execution_start")
        await r.registry.add(urls[0])
        r.pool.wake()
        assert (await r.final(prompt_id))[0].backend_id == 1
        await r.eventually(lambda: [member.client.url for member in r.pool.members.values()] == [urls[0]])
        assert not list((tmp_path / "run").glob("engine-*"))
        assert (await r.run(saved()))[0].state is JobState.SUCCEEDED


async def looking(stand_in: StandIn) -> None:
    while True:
        await stand_in.look()
        await asyncio.sleep(0.05)


async def test_logs_are_bounded(tmp_path: Path) -> None:
    async with kept(tmp_path, 1) as k:
        log = tmp_path / "logs" / "engine-1.log"
        with log.open("ab") as out:
            out.write(b"a line\n" * (LOG_BYTES // 7 + 1))
        await k.rig.eventually(lambda: log.stat().st_size < LOG_BYTES)
