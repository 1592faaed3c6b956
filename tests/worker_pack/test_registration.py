"""Workers come, fall silent, come back elsewhere, are sent away; strangers get nothing from either side."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from starlette.applications import Starlette

from backend_pool.backends.health import Health
from backend_pool.errors import BackendBusy, BackendRefused
from backend_pool.job_state import JobState
from backend_pool.worker_pack.config import Config, load
from backend_pool.worker_pack.heartbeat import Heartbeat
from backend_pool.worker_pack.wire import HEARTBEAT_PATH, PREFIX, PROTOCOL, SECRET_HEADER
from backend_pool.workers.client import WorkerClient
from backend_pool.workers.tokens import listing_now, revoke_now
from proxy.api.heartbeat_routes import worker_route
from tests.backend_pool.graphs import sampled, saved
from tests.engines import Engine
from tests.worker_pack.cluster import Begin, Hub, hub, serving


def beat(worker_id: str = "worker-one", **more: Any) -> dict[str, Any]:
    """A heartbeat of a worker that is not there."""
    known = {"protocol": PROTOCOL, "pack": "1.0", "worker_id": worker_id, "instance": "i", "name": "one", "port": 9}
    return known | more


async def post(hub: Hub, token: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Send a heartbeat; status and answer."""
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession(headers=headers) as http, http.post(hub.url + HEARTBEAT_PATH, json=body) as answer:
        return answer.status, await answer.json()


async def verbs(h: Hub, engine: Engine) -> None:
    """The dispatcher's: refused while a job runs; then the same process begins anew and registers again."""
    member = await h.member()
    worker = WorkerClient(member.client)
    prompt_id = await h.rig.submit(sampled(15))
    await h.rig.heard.until(prompt_id, "progress")
    with pytest.raises(BackendBusy):
        await worker.restart()
    upstream = (await h.rig.entry(prompt_id))[0].upstream_id or ""
    assert any("job started" in line["m"] for line in await worker.log(upstream))
    await h.rig.final(prompt_id)
    before = h.workers.heard(member.key)
    assert (await worker.validate(saved()))["node_errors"] == {}
    with pytest.raises(BackendRefused):
        await worker.validate(saved(width=10**9))
    await worker.free()
    await worker.restart()
    assert before is not None
    await h.member(holds=lambda m: _instance(h, m.key) not in (None, before.beat.instance))
    assert engine.process.poll() is None
    assert (await h.rig.run(saved()))[0].state is JobState.SUCCEEDED


async def test_a_worker_and_its_secret(tmp_path: Path, begin: Begin) -> None:
    """In the pool by itself; its routes answer to the dispatcher alone; the token sends it away again."""
    async with hub(tmp_path) as h:
        engine = begin(h.config(tmp_path / "one.json"), "--step-ms", "20")
        member = await h.member()
        heard = h.workers.heard(member.key)
        assert heard is not None and "embedded engine" in heard.beat.gpu and heard.beat.vram_total
        secret = h.workers.headers(member.key)
        paths = ["/queue", "/history", "/view?filename=x.png", "/object_info", "/", "/ws", f"{PREFIX}/about"]
        async with aiohttp.ClientSession(trust_env=False) as http:
            for headers in ({}, {SECRET_HEADER: "wrong"}, {SECRET_HEADER: ""}):
                for path in paths:
                    async with http.get(engine.url + path, headers=headers) as response:
                        assert response.status == 401, path
                async with http.post(f"{engine.url}/prompt", json={"prompt": saved()}, headers=headers) as response:
                    assert response.status == 401
            async with http.get(f"{engine.url}{PREFIX}/about", headers=secret) as response:
                assert (await response.json())["worker_id"] == "worker-one"
        await verbs(h, engine)
        token, names = revoke_now(h.rig.db, "worker-one")
        assert names == ["worker-one"] and token.revoked_ms is not None
        h.rig.pool.wake()
        await h.rig.eventually(lambda: not h.rig.pool.members)
        status, answer = await post(h, load(tmp_path / "one.json").token, beat())
        assert status == 401 and "token" in answer["error"]["message"]


async def test_tokens_do_nothing_but_register(tmp_path: Path) -> None:
    """Bad ones are refused; a worker belongs to its token; addresses and names are settled."""
    async with hub(tmp_path) as h:
        mine, other = h.token("mine"), h.token("other")
        for token in ("", "cwt_nonsense", mine[:-1]):
            assert (await post(h, token, beat()))[0] == 401
        for body in ({}, beat(worker_id="x y"), beat(url="ftp://x"), beat(port=None), beat(protocol=99), beat(port=0)):
            assert (await post(h, mine, body))[0] == 400
        status, answer = await post(h, mine, beat())
        assert status == 200 and answer["secret"] and answer["every_s"] > 0
        status, refused = await post(h, other, beat())
        assert status == 409 and "mine" in refused["error"]["message"] and "secret" not in refused
        assert (await post(h, other, beat("stranger-1")))[0] == 409, "nor by claiming its address"
        assert (await post(h, other, beat("worker-two", port=10)))[1]["secret"] != answer["secret"]
        rows = {row.name: row.url for row in await h.rig.registry.listing()}
        assert rows == {"one": "http://127.0.0.1:9", "one:10": "http://127.0.0.1:10"}
        assert (await post(h, mine, beat(port=11)))[1]["secret"] == answer["secret"], "it has moved"
        assert {row.name: row.url for row in await h.rig.registry.listing()}["one"] == "http://127.0.0.1:11"
        assert [(token.name, len(names)) for token, names in listing_now(h.rig.db)] == [("mine", 1), ("other", 1)]


async def test_silence(tmp_path: Path, begin: Begin) -> None:
    """A worker whose heartbeats stay away gets no work, whatever its port answers, and comes back with the next one.

    One that is killed in the middle of a job loses it to another, and nothing of the first attempt stays.
    """
    async with hub(tmp_path) as h:
        ear = Starlette(routes=[worker_route(h.workers, h.settings)])
        async with serving(ear) as url:
            first = begin(h.config(tmp_path / "one.json", server=url), "--step-ms", "100")
            member = await h.member()
        await h.rig.eventually(lambda: member.health is Health.DOWN)
        assert member.error is not None and "no heartbeat" in member.error
        async with serving(ear, int(url.rpartition(":")[2])):
            await h.rig.eventually(lambda: member.idle)
            prompt_id = await h.rig.submit(sampled(200))
            await h.rig.heard.until(prompt_id, "progress")
            first.kill()
            begin(h.config(tmp_path / "two.json", "worker-two"), "--step-ms", "1")
            job, document = await h.rig.final(prompt_id)
            assert job.state is JobState.SUCCEEDED and job.attempt == 2, document.messages
            assert h.rig.files() == ["output/ComfyUI_00001_.png"]


async def test_open_pages_close_while_a_job_runs(tmp_path: Path, begin: Begin) -> None:
    """With --open the ComfyUI is its operator's between jobs, never meanwhile; a prompt of theirs makes jobs wait."""
    async with hub(tmp_path) as h:
        engine = begin(h.config(tmp_path / "one.json", open=True), "--step-ms", "20")
        await h.member()
        async with aiohttp.ClientSession(trust_env=False) as http:

            async def status(path: str = "/queue") -> int:
                async with http.get(engine.url + path) as response:
                    return response.status

            assert (await status(), await status(f"{PREFIX}/about")) == (200, 401)
            prompt_id = await h.rig.submit(sampled(15))
            await h.rig.heard.until(prompt_id, "progress")
            assert await status() == 423
            await h.rig.final(prompt_id)
            async with http.post(f"{engine.url}/prompt", json={"prompt": sampled(20)}) as response:
                assert response.status == 200
            job, document = await h.rig.run(saved())
            assert job.state is JobState.SUCCEEDED and job.attempt == 1, document.messages
        assert len(list((engine.base_dir / "output").iterdir())) == 1, "the operator's own, where it belongs"


def _instance(hub: Hub, backend_id: int) -> str | None:
    heard = hub.workers.heard(backend_id)
    return None if heard is None else heard.beat.instance


def test_a_proxy_that_is_down_is_tried_on(caplog: pytest.LogCaptureFixture) -> None:
    """One line, no exception, and it ends when told to."""
    config = Config("http://127.0.0.1:9", "cwt_x", "worker-one", "one", heartbeat_s=0.01)
    tried: list[int] = []

    def describe() -> dict[str, Any]:
        tried.append(1)
        if len(tried) == 3:
            heart.stop()
        return {}

    heart = Heartbeat(config, describe, lambda _answer: None, lambda: None)
    heart._listening = lambda: 1  # type: ignore[method-assign]
    heart._beat()
    assert len(tried) == 3
    assert [record.message for record in caplog.records if "does not take this worker" in record.message] != []


async def test_a_server_that_is_started_anew_takes_the_job_up(tmp_path: Path, begin: Begin) -> None:
    """Rendered once, all files at home, also one that was written unasked before the first server ended."""
    async with hub(tmp_path) as first:
        begin(first.config(tmp_path / "one.json"), "--step-ms", "40")
        member = await first.member()
        headers, url = first.workers.headers(member.key), f"{member.row.url}/engine/faults"
        stray = {"fault": "stray_file", "node": "CheckpointLoaderSimple"}
        async with aiohttp.ClientSession(headers=headers) as http, http.post(url, json=stray) as response:
            assert response.status == 200
        prompt_id = await first.rig.submit(sampled(40))
        await first.rig.heard.until(prompt_id, "progress")
    async with hub(tmp_path) as second:
        job, document = await second.rig.final(prompt_id)
        assert job.state is JobState.SUCCEEDED and job.attempt == 1, document.messages
        assert second.rig.files() == ["output/ComfyUI_00001_.png", "output/stray.txt"]
        assert second.rig.heard.kinds(prompt_id)[-3:] == ["executed", "execution_success", "executing"]
