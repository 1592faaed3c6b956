"""What one who has a worker's token may not do: take others' backends, send jobs elsewhere, fill the pool."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from backend_pool.backends.health import Health
from backend_pool.worker_pack.wire import HEARTBEAT_PATH, PREFIX
from backend_pool.workers.address import place_of
from backend_pool.workers.limits import MAX_WORKERS, Bucket
from proxy.base.errors import TooManyRequests
from tests.backend_pool.strange_backend import strange_backend
from tests.worker_pack.cluster import Hub, hub
from tests.worker_pack.test_registration import beat, post


async def test_an_administrators_backend_stays(tmp_path: Path) -> None:
    """Neither a new worker nor one that moves gets its row, by whatever spelling of its address."""
    async with hub(tmp_path) as h:
        token = h.token("mine")
        await h.rig.registry.add("http://127.0.0.1:12", "stock")
        await h.rig.registry.add("http://gpu.example:80", "named")
        assert (await post(h, token, beat()))[0] == 200
        urls = (
            "127.0.0.1:12",
            "localhost:12",
            "127.1:12",
            "LOCALHOST.:12",
            "[::1]:12",
            "a:b@127.0.0.1:12/",
            "GPU.Example",
        )
        for url in urls:
            for worker in ("worker-one", "worker-two"):
                status, answer = await post(h, token, beat(worker, url=f"http://{url}"))
                assert status == 409 and "Remove it first" in answer["error"]["message"], (url, worker, answer)
        await h.workers.reload()
        rows = {row.name: (row.url, row.source, h.workers.known(row.id or 0)) for row in await h.rig.registry.listing()}
        assert rows["stock"] == ("http://127.0.0.1:12", "registered", None)
        assert rows["named"] == ("http://gpu.example:80", "registered", None)
        assert rows["one"][:2] == ("http://127.0.0.1:9", "worker")


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]", "0.0.0.0", "224.0.0.1", "2852039166"]
)
async def test_addresses_that_no_worker_has(tmp_path: Path, host: str) -> None:
    async with hub(tmp_path) as h:
        status, answer = await post(h, h.token(), beat(url=f"http://{host}/latest"))
        assert status == 400 and "no address of a worker" in answer["error"]["message"]
        assert await h.rig.registry.listing() == []


async def test_our_own_address(tmp_path: Path) -> None:
    async with hub(tmp_path) as h:
        port, token = int(h.url.rpartition(":")[2]), h.token()
        for body in (beat(port=port), beat(url=f"http://localhost:{port}"), beat(url=f"http://127.0.0.2:{port}/x")):
            status, answer = await post(h, token, body)
            assert status == 400 and "this server itself" in answer["error"]["message"]


async def test_a_token_has_so_many_workers(tmp_path: Path) -> None:
    async with hub(tmp_path) as h:
        token = h.token()
        for number in range(MAX_WORKERS):
            assert (await post(h, token, beat(f"worker-{number:04}", port=number + 1, name=f"w{number}")))[0] == 200
        status, answer = await post(h, token, beat("one-too-many", port=1000))
        assert status == 409 and f"{MAX_WORKERS} workers already" in answer["error"]["message"]
        assert (await post(h, token, beat("worker-0001", port=1000, name="w1")))[0] == 200, "it may move"
        assert (await post(h, h.token("another"), beat("another-one", port=1001)))[0] == 200
        assert len(await h.rig.registry.listing()) == MAX_WORKERS + 1


async def test_a_token_sends_so_many_heartbeats(tmp_path: Path) -> None:
    """And others are not slowed down by it."""
    async with hub(tmp_path, heartbeat_interval_s=60) as h:
        token = h.token()
        headers = {"Authorization": f"Bearer {token}"}
        answers = []
        async with aiohttp.ClientSession(headers=headers) as http:
            for _ in range(1000):
                async with http.post(h.url + HEARTBEAT_PATH, json=beat()) as answer:
                    answers.append((answer.status, (await answer.json()).get("error", {}).get("message", "")))
                if answers[-1][0] != 200:
                    break
        assert answers[-1][0] == 429 and "Too many heartbeats" in answers[-1][1]
        assert {status for status, _ in answers[:-1]} == {200}
        assert (await post(h, h.token("other"), beat("worker-two", port=10)))[0] == 200


def test_a_bucket_fills_again() -> None:
    now = [0.0]
    bucket = Bucket(2, 0.5, lambda: now[0])
    for _ in range(2):
        bucket.take(1, "things")
    with pytest.raises(TooManyRequests, match="Too many things"):
        bucket.take(1, "things")
    bucket.take(2, "things")
    now[0] = 2.0
    bucket.take(1, "things")
    with pytest.raises(TooManyRequests):
        bucket.take(1, "things")


@pytest.mark.parametrize(
    ("one", "other"),
    [("http://a", "http://A:80"), ("https://a/b", "https://x:y@a.:443/b"), ("http://a", "http://a/api")],
)
def test_spellings(one: str, other: str) -> None:
    assert place_of(one) == place_of(other)


def test_other_places() -> None:
    assert len({place_of(url) for url in ("http://a", "https://a", "http://a:81", "http://b", "http://a/b")}) == 5


async def unproven(h: Hub, asked: list[str]) -> None:
    """Its member is asked who it is, and nothing else."""
    await h.rig.eventually(lambda: any(m.error for m in h.rig.pool.members.values()))
    (member,) = h.rig.pool.members.values()
    assert member.health is not Health.UP and not member.idle
    assert set(asked) == {f"GET {PREFIX}/about"}


async def test_an_address_has_to_prove_itself(tmp_path: Path) -> None:
    """A server that is no worker, named by a heartbeat as the worker's address, gets no jobs and no other question."""
    async with strange_backend() as victim, hub(tmp_path) as h:
        status, _ = await post(h, h.token(), beat(url=victim.url))
        assert status == 200
        await unproven(h, victim.asked)


async def test_another_worker_at_the_address(tmp_path: Path) -> None:
    """Nor does a worker that says it is another, or another instance."""
    said: dict[str, Any] = {"worker_id": "worker-one", "instance": "other"}
    async with strange_backend(about=said) as victim, hub(tmp_path) as h:
        token = h.token()
        await post(h, token, beat(url=victim.url))
        await unproven(h, victim.asked)
        (member,) = h.rig.pool.members.values()
        assert member.error is not None and "not the worker that registered" in member.error
        said["instance"] = "i"
        await h.rig.eventually(lambda: member.proven == "i" and member.health is Health.UP)
