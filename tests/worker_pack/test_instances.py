"""Several workers of one installation, as for several GPUs: each is itself, and none takes another's row."""

import asyncio
import socket
from pathlib import Path

import pytest

from backend_pool.job_state import JobState
from backend_pool.worker_pack.config import Config
from backend_pool.worker_pack.pack import Pack
from tests.backend_pool.graphs import sampled
from tests.engines import Engine
from tests.worker_pack.cluster import Begin, hub
from tests.worker_pack.test_judging import Slow
from tests.worker_pack.test_registration import beat, post


def on_some_port(begin: Begin, config: Path) -> Engine:
    """An engine on a port that was chosen before, as ComfyUI's is; somebody may take it in between."""
    for _ in range(5):
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
        try:
            return begin(config, "--port", str(port), "--step-ms", "20")
        except RuntimeError:
            continue
    raise AssertionError("no free port")


async def test_two_of_one_installation(tmp_path: Path, begin: Begin) -> None:
    """One token, one settings file, one directory; both work at once for two users."""
    async with hub(tmp_path) as h:
        config = h.config(tmp_path / "one.json")
        first, second = on_some_port(begin, config), on_some_port(begin, config)
        assert first.base_dir == second.base_dir
        await h.rig.eventually(lambda: len([m for m in h.rig.pool.members.values() if m.idle]) == 2)
        names = {member.row.name for member in h.rig.pool.members.values()}
        assert names in ({"worker-one", f"worker-one:{url.rpartition(':')[2]}"} for url in (first.url, second.url))
        jobs = [await h.rig.submit(sampled(100), user) for user in (1, 2)]
        await asyncio.gather(*(h.rig.heard.until(job, "progress") for job in jobs))
        ended = [await h.rig.final(job, user) for user, job in enumerate(jobs, 1)]
        assert [job.state for job, _ in ended] == [JobState.SUCCEEDED] * 2
        assert [h.rig.files(user) for user in (1, 2)] == [["output/ComfyUI_00001_.png"]] * 2
        assert len({job.backend_id for job, _ in ended}) == 2


async def test_two_that_cannot_be_told_apart(tmp_path: Path) -> None:
    """The second is refused in words while the first one lives, and taken once it has fallen silent."""
    async with hub(tmp_path) as h:
        token = h.token()
        assert (await post(h, token, beat()))[0] == 200
        status, answer = await post(h, token, beat(instance="other", port=10))
        assert status == 409 and "same installation and port" in answer["error"]["message"]
        status, answer = await post(h, token, beat("worker-two", instance="other"))
        assert status == 409 and "{port}" in answer["error"]["message"]
        assert [row.url for row in await h.rig.registry.listing()] == ["http://127.0.0.1:9"]
        (member,) = h.workers._heard
        await h.rig.eventually(lambda: h.workers.silent_s(member) is not None)
        assert (await post(h, token, beat(instance="other", port=10)))[0] == 200
        assert [row.url for row in await h.rig.registry.listing()] == ["http://127.0.0.1:10"]


async def test_names_are_given_out_until_there_is_none(tmp_path: Path) -> None:
    async with hub(tmp_path) as h:
        token = h.token()
        labels = ["one", "one:9", "one-same-wor", "one-same-wor:9"]
        for place, taken in enumerate(labels):
            await h.rig.registry.add(f"http://127.0.0.1:{place + 21}", taken)
            status, answer = await post(h, token, beat("same-worker"))
            if status == 200:
                names = {row.name for row in await h.rig.registry.listing()}
                assert names == set(labels[: place + 2])
                await asyncio.to_thread(h.rig.registry.remove_now, labels[place + 1])
                await h.workers.reload()
        assert status == 409 and "--name" in answer["error"]["message"]


@pytest.mark.parametrize(("port", "url"), [(8189, "http://gpu:8189/x"), (None, "http://gpu:{port}/x")])
async def test_the_address_of_each(tmp_path: Path, port: int | None, url: str) -> None:
    config = Config("http://127.0.0.1:9", "cwt_x", "worker-one", "one", advertise="http://gpu:{port}/x")
    said = Pack(config, Slow(tmp_path), tmp_path / "pack", port).description()
    assert said["url"] == url and said["worker_id"] == ("worker-one" if port is None else "worker-one-8189")
