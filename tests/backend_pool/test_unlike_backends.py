"""A pool of backends that offer different things, on real engines: who gets which job, and what is known of whom."""

import contextlib
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backend_pool.backends.health import Health
from backend_pool.files.user_models import files_of
from backend_pool.job_state import JobState
from backend_pool.jobs.store import JobStore
from backend_pool.model import BackendMode
from backend_pool.offers.judgement import judge
from proxy.base.settings import Settings
from tests.backend_pool.conftest import Start
from tests.backend_pool.graphs import sampled, saved
from tests.backend_pool.rig import QUICK, Heard, Rig, assemble, open_database, rig, running
from tests.engine.graphs import node


def checkpoint(name: str) -> dict[str, Any]:
    prompt = sampled(steps=1)
    prompt["4"]["inputs"]["ckpt_name"] = name
    return prompt


def blurred() -> dict[str, Any]:
    prompt = saved()
    blur = node("ImageBlur", image=["1", 0], blur_radius=1, sigma=1.0)
    return prompt | {"3": blur, "2": node("SaveImage", images=["3", 0], filename_prefix="blurred")}


@contextlib.asynccontextmanager
async def restarted(root: Path, *new: str, **settings: Any) -> AsyncIterator[Rig]:
    """The same pool after a restart, not waiting for backends that are away; `new` ones were added meanwhile."""
    chosen = Settings.model_validate({"data_dir": root, **QUICK, **settings})
    db = open_database(root)
    store = JobStore(db, chosen.queue_limit, chosen.history_limit)
    made = assemble(root, listener=Heard(), store=store, db=db, settings=chosen)
    for url in new:
        await made.registry.add(url)
    async with running(made):
        yield made


def judged(r: Rig, prompt: dict[str, Any]) -> tuple[bool, str]:
    """What POST /prompt would say."""
    verdict = judge(prompt, r.pool.info, files_of(r.dirs(1)))
    return verdict.ok, "" if verdict.error is None else verdict.error["details"]


async def test_a_job_goes_where_its_nodes_are_and_waits_for_them(tmp_path: Path, start: Start) -> None:
    """Users see what any backend has. What only one has, and that one is away, is waited for and not refused."""
    plain = start("--checkpoints", "plain.safetensors", "--without-nodes", "ImageBlur")
    rich = start("--checkpoints", "rich.safetensors")
    async with rig(tmp_path, plain.url, rich.url) as r:
        plain_name, rich_name = (r.pool.members[key].row.name for key in (1, 2))
        assert "ImageBlur" in r.pool.info.union and "ImageBlur" not in r.pool.members[1].info
        for _ in range(2):
            assert (await r.run(blurred()))[0].backend_id == 2
        both = blurred() | {"9": node("CheckpointLoaderSimple", ckpt_name="plain.safetensors")}
        assert judged(r, both) == (True, ""), "nothing needs the loader"
        sampling = checkpoint("plain.safetensors")
        sampling |= {"10": node("ImageBlur", image=["8", 0], blur_radius=1, sigma=1.0)}
        sampling["9"]["inputs"]["images"] = ["10", 0]
        ok, words = judged(r, sampling)
        assert not ok and f"{plain_name} lacks node ImageBlur; {rich_name} lacks checkpoint plain.safetensors" in words
        torn = await r.submit(sampling, 3)
        seq = (await r.entry(torn, 3))[0].key
        await r.eventually(lambda: "no single backend has all it needs" in (r.dispatcher.reason(seq) or ""))
        await r.registry.set_mode(2, BackendMode.DRAINING)
        await r.eventually(lambda: r.pool.members[2].row.mode is BackendMode.DRAINING)
        assert judged(r, blurred()) == (True, "")
        waits = await r.submit(blurred())
        seq = (await r.entry(waits))[0].key
        words = f"waiting for a backend with node ImageBlur; {rich_name} (draining) has it"
        await r.eventually(lambda: r.dispatcher.reason(seq) == words)
        await r.registry.set_mode(2, BackendMode.ACTIVE)
        assert (await r.final(waits))[0].backend_id == 2
        await r.cancel(torn, 3)


async def test_what_a_backend_offered_is_known_after_a_restart(tmp_path: Path, start: Start) -> None:
    """The one with the model is down when the server starts again: its job is neither refused nor sent elsewhere."""
    other, right = start("--checkpoints", "other.safetensors"), start("--checkpoints", "mine.safetensors")
    async with rig(tmp_path, other.url, right.url) as r:
        assert judged(r, checkpoint("mine.safetensors")) == (True, "")
    right.kill()
    async with restarted(tmp_path) as r:
        await r.eventually(lambda: r.pool.members.keys() == {1, 2} and r.pool.members[1].idle)
        assert judged(r, checkpoint("mine.safetensors")) == (True, "")
        waits = await r.submit(checkpoint("mine.safetensors"))
        seq = (await r.entry(waits))[0].key
        await r.eventually(lambda: r.health() == [Health.UP, Health.DOWN])
        name = r.pool.members[2].row.name
        words = f"waiting for a backend with checkpoint mine.safetensors; {name} (down) has it"
        await r.eventually(lambda: r.dispatcher.reason(seq) == words)
        assert (await r.entry(waits))[0].state is JobState.QUEUED
        assert judged(r, checkpoint("nobodys.safetensors")) == (False, "nobodys.safetensors is on none of 2 backends.")
        await r.cancel(waits)
        await r.registry.remove(2)
        await r.pool.refresh()
        await r.eventually(lambda: not (tmp_path / "backends/2.json.gz").exists())
        assert not judged(r, checkpoint("mine.safetensors"))[0]


async def test_a_job_does_not_go_to_whoever_answers_first(tmp_path: Path, start: Start) -> None:
    """Nothing is remembered of the backend that has its model, and that one answers last."""
    other, right = start("--checkpoints", "other.safetensors"), start("--checkpoints", "mine.safetensors")
    async with rig(tmp_path, other.url) as r:
        await r.registry.set_mode(1, BackendMode.DISABLED)
        await r.pool.refresh()
        waits = await r.submit(checkpoint("mine.safetensors"))
    shutil.rmtree(tmp_path / "backends")
    right.process.send_signal(signal.SIGSTOP)
    async with restarted(tmp_path, right.url, backend_down_after_s=60) as r:
        await r.registry.set_mode(1, BackendMode.ACTIVE)
        seq = (await r.entry(waits))[0].key
        await r.eventually(lambda: r.dispatcher.reason(seq) == "waiting for a backend with checkpoint mine.safetensors")
        right.process.send_signal(signal.SIGCONT)
        job, _ = await r.final(waits)
        assert (job.state, job.backend_id, job.attempt) == (JobState.SUCCEEDED, 2, 1)


@pytest.mark.parametrize("asked", [False, True])
async def test_a_new_model_shows(tmp_path: Path, start: Start, asked: bool) -> None:
    """After the models' interval, or at once when somebody asks for it; and a removed one goes."""
    engine = start()
    async with rig(tmp_path, engine.url, models_interval_s=3600.0 if asked else 0.1) as r:
        path = engine.base_dir / "models/checkpoints/deep/new.safetensors"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"x")
        if asked:
            await r.registry.ask_refresh(1)
            r.pool.wake()
        await r.eventually(lambda: r.pool.info.models.having("checkpoints", "deep/new.safetensors") == [1])
        assert (await r.run(checkpoint("deep/new.safetensors")))[0].state is JobState.SUCCEEDED
        path.unlink()
        if asked:
            await r.registry.ask_refresh(1)
            r.pool.wake()
        await r.eventually(lambda: not r.pool.info.models.having("checkpoints", "deep/new.safetensors"))
        assert not judged(r, checkpoint("deep/new.safetensors"))[0]
