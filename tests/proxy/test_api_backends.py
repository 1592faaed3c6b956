"""A backend's life over the JSON API and on the administrators' pages: one server, backends that nobody answers for."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlmodel import Session

from backend_pool.backends.health import Health
from backend_pool.backends.phase import ManagedState, Phase
from backend_pool.comfy.result import Result
from backend_pool.job_state import JobState
from backend_pool.model import Backend
from proxy.base.errors import BadInput
from tests.proxy.control_server import API, Server, serving

ALL = f"{API}/admin/backends"
PROMPT = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox"}}}
PAGE = "/cluster/admin/"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path, probe_interval_s=60) as running:
        await running.user("root", admin=True)
        await running.user("Ann")
        yield running


@pytest.fixture
async def root(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with server.signed_in("root") as client:
        yield client


async def added(server: Server, *names: str, source: str = "registered") -> list[int]:
    """Ids of new backends, which the pool has taken in."""
    rows = [
        await server.cluster.work.registry.add(f"http://127.0.0.1:{number}", name, source)
        for number, name in enumerate(names, 1)
    ]
    await server.cluster.work.pool.refresh()
    return [row.id or 0 for row in rows]


def changed(server: Server, key: int, **columns: Any) -> None:
    """Columns of a row, as another process would write them."""

    def work(s: Session) -> None:
        row = s.get_one(Backend, key)
        for name, value in columns.items():
            setattr(row, name, value)

    server.cluster.db.write_now(work)


async def test_fields_are_changed(server: Server, root: httpx.AsyncClient) -> None:
    made = (await root.post(ALL, json={"url": "http://127.0.0.1:9", "labels": ["gpu=a100", "fast"]})).json()
    assert (made["labels"], made["empty"], made["restart"], made["restartable"]) == (
        ["fast", "gpu=a100"],
        True,
        "none",
        False,
    )
    one = f"{ALL}/{made['id']}"
    answer = (await root.patch(one, json={"add_labels": ["gpu=h100"], "remove_labels": ["fast"], "note": "new"})).json()
    assert (answer["labels"], answer["note"], answer["mode"]) == (["gpu=h100"], "new", "active")
    assert (await root.patch(one, json={"labels": []})).json()["labels"] == []
    before = int(time.time() * 1000)
    answer = (await root.patch(one, json={"mode": "draining", "drain_within_s": 600})).json()
    assert answer["mode"] == "draining" and 0 <= answer["drain_by_ms"] - before - 600_000 < 60_000
    assert (await root.patch(one, json={"mode": "active"})).json()["drain_by_ms"] is None
    for bad in (
        {},
        {"drain_within_s": 5},
        {"mode": "disabled", "drain_within_s": 5},
        {"mode": "draining", "drain_within_s": -1},
        {"labels": ["a b"]},
        {"note": "x" * 201},
        {"quarantine": None},
    ):
        assert (await root.patch(one, json=bad)).status_code == 400, bad
    with pytest.raises(BadInput):
        await server.cluster.work.registry.add("http://127.0.0.1:10", labels=["a b"])


async def test_quarantine_ends_by_hand(server: Server, root: httpx.AsyncClient) -> None:
    (key,) = await added(server, "gpu-1")
    assert (await root.post(f"{ALL}/{key}/trust")).status_code == 409
    changed(server, key, quarantine="CUDA error: <b>", quarantine_ms=1)
    page = (await root.get(PAGE)).text
    assert "Trust again" in page and "CUDA error: &lt;b&gt;" in page
    answer = (await root.post(f"{ALL}/{key}/trust")).json()
    assert (answer["quarantine"], answer["quarantine_ms"]) == (None, None)
    assert "Trust again" not in (await root.get(PAGE)).text


async def test_restarts_are_asked_for_and_taken_back(server: Server, root: httpx.AsyncClient) -> None:
    by_hand, first, second = await added(server, "stock", "gpu-1", "gpu-2", source="registered")
    refused = await root.post(f"{ALL}/{by_hand}/restart")
    assert refused.status_code == 409 and "worker pack" in refused.json()["error"]["message"]
    assert (await root.post(f"{ALL}/restart", json={})).status_code == 404
    assert (await root.post(f"{ALL}/999/restart")).status_code == 404
    for key in (first, second):
        changed(server, key, source="agent")
    answer = (await root.post(f"{ALL}/{first}/restart")).json()
    assert (answer["restart"], answer["restartable"]) == ("waiting", True)
    changed(server, first, labels=["old"])
    assert [b["name"] for b in (await root.post(f"{ALL}/restart", json={"labels": ["old"]})).json()["backends"]] == [
        "gpu-1"
    ]
    both = (await root.post(f"{ALL}/restart", json={})).json()["backends"]
    assert [(b["name"], b["restart"]) for b in both] == [("gpu-1", "waiting"), ("gpu-2", "waiting")]
    page = (await root.get(PAGE)).text
    assert "Still to restart: gpu-1, gpu-2." in page and "Restart one by one" in page
    left = (await root.delete(f"{ALL}/restart")).json()["backends"]
    assert [b["restart"] for b in left] == ["none", "none"]
    changed(server, first, restart_ms=5, restarted_ms=5)
    assert "Not back after its restart" in (await root.get(PAGE)).text


async def test_the_page_shows_what_a_backend_does(server: Server, root: httpx.AsyncClient) -> None:
    busy, crashed = await added(server, "gpu-1", "gpu-2")
    ann = await server.cluster.people.access.users.by_name("ann")
    assert ann is not None
    job = await server.running(await server.job(ann, PROMPT, "0123456789"), busy)
    member, other = server.cluster.work.pool.members[busy], server.cluster.work.pool.members[crashed]
    member.health, member.job, member.failed = Health.UP, job.key, 2
    member.warmth.ran(ann.key, "", ["checkpoints:flux-dev.safetensors"], None)
    other.managed = ManagedState(Phase.CRASHED, 1, "exit status 3", 2, 9_999_999_999_999)
    by_ms = int(time.time() * 1000) + 5_400_000
    changed(server, busy, mode="draining", drain_by_ms=by_ms, note="driver", labels=["gpu=a100"])
    first, second = (await root.get(ALL)).json()["backends"]
    assert (first["running"]["user"], first["running"]["id"], first["empty"]) == ("Ann", job.key, False)
    assert (first["models"], first["failed"]) == (["checkpoints:flux-dev.safetensors"], 2)
    assert second["managed"]["state"] == "crashed" and second["managed"]["error"] == "exit status 3"
    page = (await root.get(PAGE)).text
    for words in (
        "runs a job of Ann", f"/cluster/admin/jobs/{job.key}", "its job is taken away in 1 h", "gpu=a100", "driver",
        "1 model loaded", "2 jobs lost in a row", "exit status 3", "Crashed",
    ):  # fmt: skip
        assert words in page, words
    member.job = None
    assert "empty, can be stopped" in (await root.get(PAGE)).text
    other.managed = ManagedState(Phase.STARTING, 1)
    other.health, other.error = Health.JOINING, other.managed.words
    page = (await root.get(PAGE)).text
    assert "Starting" in page and "it is starting" not in page


async def test_a_jobs_whole_story(server: Server, root: httpx.AsyncClient) -> None:
    (key,) = await added(server, "gpu-1")
    ann = await server.cluster.people.access.users.by_name("ann")
    assert ann is not None
    job = await server.running(await server.job(ann, PROMPT, "0123456789"), key)
    await server.store.requeue(job, "its backend is <gone>")
    job = await server.ended(job, JobState.SUCCEEDED, Result())
    path = f"{API}/admin/jobs/{job.key}"
    told = (await root.get(path)).json()
    assert (told["user"], told["state"], told["attempt"], told["backend"]) == ("Ann", "succeeded", 2, "gpu-1")
    assert [step["state"] for step in told["steps"]] == [
        "queued", "assigned", "running", "queued", "assigned", "running", "succeeded",
    ]  # fmt: skip
    assert [step["attempt"] for step in told["steps"]][-1] == 2
    assert "a red fox" not in str(told)
    page = (await root.get(f"/cluster/admin/jobs/{job.key}")).text
    assert "its backend is &lt;gone&gt;" in page and "a red fox" not in page
    assert "back from gpu-1" in page and 'class="chip busy"' not in page  # nothing of what is over moves
    for missing in ("99", str(2**70)):
        assert (await root.get(f"{API}/admin/jobs/{missing}")).status_code == 404
        assert (await root.get(f"/cluster/admin/jobs/{missing}")).status_code == 404
    async with server.signed_in("Ann") as hers:
        assert (await hers.get(path)).status_code == 403
        assert (await hers.get(f"/cluster/admin/jobs/{job.key}")).status_code == 403
        for method, address in (
            ("POST", f"{ALL}/{key}/trust"),
            ("POST", f"{ALL}/restart"),
            ("DELETE", f"{ALL}/restart"),
        ):
            assert (await hers.request(method, address)).status_code == 403
