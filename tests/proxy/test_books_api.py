"""Groups, reservations, quotas and usage over HTTP, as administrators and users meet them."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend_pool.books.ledger import Spent
from backend_pool.comfy.result import Result
from backend_pool.job_state import JobState
from proxy.access.accounts import User
from tests.proxy.control_server import API, HTML, Server, serving

PROMPT = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox"}}}
AHEAD = datetime.now(UTC) + timedelta(hours=1)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path, quota_contact="Grace, room 12") as running:
        await running.user("root", admin=True)
        yield running


@pytest.fixture
async def root(server: Server) -> AsyncIterator[httpx.AsyncClient]:
    async with server.signed_in("root") as browser:
        yield browser


async def said(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()


async def used(server: Server, user: User, seconds: float, prompt_id: str) -> None:
    """A job that is charged."""
    job = await server.running(await server.job(user, PROMPT, prompt_id))
    spent = Spent(round(seconds * 1000), 500, round(seconds * 1000), "=gpu", "A100")
    await server.store.finish(job, JobState.SUCCEEDED, Result(), "test", spent=spent)
    await server.cluster.work.groups.reload()


async def test_a_groups_life(server: Server, root: httpx.AsyncClient) -> None:
    ann = await server.user("Ann")
    made = await said(
        await root.post(f"{API}/admin/groups", json={"name": "class", "weight": "2", "labels": "a, b=c"}), 201
    )
    assert (made["weight"], made["labels"], made["running_limit"], made["quota"]) == (2.0, ["a", "b=c"], None, None)
    path = f"{API}/admin/groups/{made['id']}"
    await said(await root.post(f"{path}/members", json={"user": "ann"}))
    async with server.signed_in("Ann") as hers:
        share = await said(await hers.get(f"{API}/share"))
        assert (share["group"], share["weight"], share["queue_limit"]) == ("class", 2.0, 1000)
        await said(await root.patch(path, json={"queue_limit": 7, "quota_s": 60}))
        share = await said(await hers.get(f"{API}/share"))
        assert share["queue_limit"] == 7 and share["quota"]["left_s"] == 60 and share["quota"]["notice"] is None
        await said(await root.patch(path, json={"queue_limit": "", "quota_s": None}))
        (group,) = (await said(await root.get(f"{API}/admin/groups")))["groups"]
        assert group["queue_limit"] is None and group["quota"] is None and group["weight"] == 2.0
        assert group["members"] == [{"id": ann.key, "name": "Ann"}]
        await said(await root.delete(f"{path}/members/{ann.key}"))
        assert (await said(await hers.get(f"{API}/share")))["group"] == ""
    await said(await root.delete(path))
    await said(await root.delete(path), 404)
    await said(await root.post(f"{path}/members", json={"user": "ann"}), 404)


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "a", "weight": 0},
        {"name": "a", "weight": "NaN"},
        {"name": "a", "quota_period": "week"},
        {"name": "a", "labels": ["a b"]},
        {"name": "a", "running_limit": 1.5},
        {"name": "a", "owner": "me"},
    ],
)
async def test_groups_that_are_refused(root: httpx.AsyncClient, body: dict[str, Any]) -> None:
    await said(await root.post(f"{API}/admin/groups", json=body), 400)
    assert (await said(await root.get(f"{API}/admin/groups")))["groups"] == []


async def test_a_used_up_quota_refuses_prompts_and_says_when_it_goes_on(
    server: Server, root: httpx.AsyncClient
) -> None:
    """In ComfyUI's shape, so that the WebUI shows the message; the note on the page comes before."""
    ann = await server.user("Ann")
    wanted = {"name": "class", "quota_s": 100, "quota_period": "month"}
    made = await said(await root.post(f"{API}/admin/groups", json=wanted), 201)
    await said(await root.post(f"{API}/admin/groups/{made['id']}/members", json={"user": "Ann"}))
    async with server.signed_in("Ann") as hers:
        await used(server, ann, 85, "a1")
        assert (await said(await hers.post("/prompt", json={"prompt": PROMPT}), 503))["error"]["type"] == "unavailable"
        assert "has used 85 % of its GPU time" in (await hers.get("/cluster/", headers=HTML)).text
        await used(server, ann, 20, "a2")
        for path in ("/prompt", "/api/prompt"):
            answer = await hers.post(path, json={"prompt": PROMPT})
            error = (await said(answer, 429))["error"]
            assert error["type"] == "quota_exceeded" and answer.json()["node_errors"] == {}
            assert "for this month. It goes on at 01 " in error["message"]
            assert error["message"].endswith("00:00 UTC. For more, ask Grace, room 12.")
            assert error["extra_info"]["used_s"] == 105 and error["extra_info"]["limit_s"] == 100
            assert 0 < int(answer.headers["retry-after"]) <= 31 * 86_400 + 1
        quota = (await said(await hers.get(f"{API}/share")))["quota"]
        assert quota["exhausted"] and quota["left_s"] == 0 and "Grace, room 12" in quota["notice"]
        assert "Grace, room 12" in (await hers.get("/cluster/account", headers=HTML)).text
        await said(await root.patch(f"{API}/admin/groups/{made['id']}", json={"quota_s": 1000}))
        await said(await hers.post("/prompt", json={"prompt": PROMPT}), 503)


async def test_a_users_lane(server: Server) -> None:
    await server.user("Ann")
    async with server.signed_in("Ann") as hers:
        assert (await said(await hers.get(f"{API}/share")))["lane"] == "interactive"
        for lane in ("batch", "batch", "interactive"):
            assert (await said(await hers.patch(f"{API}/share", json={"lane": lane})))["lane"] == lane
        await said(await hers.patch(f"{API}/share", json={"lane": "slow"}), 400)


async def test_reservations(server: Server, root: httpx.AsyncClient) -> None:
    """Made by administrators, seen by everybody."""
    await server.user("Ann")
    await said(await root.post(f"{API}/admin/groups", json={"name": "class"}), 201)
    await said(await root.post(f"{API}/admin/backends", json={"url": "http://127.0.0.1:9", "name": "gpu 1"}), 201)
    await server.cluster.work.pool.refresh()
    wish = {
        "group": "class",
        "backends": "gpu 1",
        "labels": ["fast", "gpu=a100"],
        "begin": AHEAD.isoformat(),
        "end": (AHEAD + timedelta(minutes=30)).isoformat().replace("+00:00", "Z"),
    }
    row = await said(await root.post(f"{API}/admin/reservations", json=wish), 201)
    assert (row["group"], row["backend_names"], row["active"]) == ("class", ["gpu 1"], False)
    assert row["end_ms"] - row["begin_ms"] == 1_800_000
    await said(await root.post(f"{API}/admin/reservations", json=wish), 409)
    for bad in (
        {"begin": "2026-01-01T10:00"},
        {"begin": "soon"},
        {"end": wish["begin"]},
        {"backends": "", "labels": []},
    ):
        await said(await root.post(f"{API}/admin/reservations", json=wish | bad), 400)
    await said(await root.post(f"{API}/admin/reservations", json=wish | {"group": "others"}), 404)
    async with server.signed_in("Ann") as hers:
        assert [one["id"] for one in (await said(await hers.get(f"{API}/reservations")))["reservations"]] == [row["id"]]
        assert (
            "gpu 1, backends with fast, gpu=a100 reserved for class from"
            in (await hers.get("/cluster/", headers=HTML)).text
        )
        await said(await hers.delete(f"{API}/admin/reservations/{row['id']}"), 403)
    page = (await root.get("/cluster/admin/groups", headers=HTML)).text
    assert "gpu 1" in page and "Later" in page
    await said(await root.delete(f"{API}/admin/reservations/{row['id']}"))
    assert (await said(await root.get(f"{API}/reservations")))["reservations"] == []
    begun = {"begin": (AHEAD - timedelta(days=1)).isoformat(), "end": (AHEAD + timedelta(days=2)).isoformat()}
    await said(await root.post(f"{API}/admin/reservations", json=wish | begun), 201)
    until = f"reserved for class until {AHEAD + timedelta(days=2):%Y-%m-%d %H:%M} UTC"
    assert until in (await root.get("/cluster/admin/", headers=HTML)).text


async def test_usage_and_its_csv(server: Server, root: httpx.AsyncClient) -> None:
    """Everybody's for administrators, one's own for users; no name becomes a formula."""
    ann, ben = await server.user("@Ann"), await server.user("Ben")
    await used(server, ann, 2.5, "a1")
    await used(server, ben, 4, "b1")
    await used(server, ben, 5, "b2")
    report = await said(await root.get(f"{API}/admin/usage?days=2"))
    assert [(row["key"], row["jobs"], row["gpu_s"]) for row in report["rows"]] == [("Ben", 2, 9), ("@Ann", 1, 2.5)]
    assert report["total"]["gpu_s"] == 11.5 and report["by"] == "user"
    first, last = ((datetime.now(UTC) + timedelta(days=days)).date().isoformat() for days in (-1, 1))
    by_day = await said(await root.get(f"{API}/admin/usage?by=day&from={first}&to={last}"))
    assert sum(row["jobs"] for row in by_day["rows"]) == 3 and (by_day["first"], by_day["last"]) == (first, last)
    for whose, jobs in (("user=ben", 2), ("group=none", 3), ("group=research", 0), ("user=ben&group=none", 2)):
        theirs = await said(await root.get(f"{API}/admin/usage?by=day&{whose}"))
        assert sum(row["jobs"] for row in theirs["rows"]) == jobs, whose
    await said(await root.get(f"{API}/admin/usage?user=nobody"), 404)
    for bad in ("days=0", "days=x", "by=name", "from=yesterday", "from=2026-02-01&to=2026-01-01", "to=0001-01-01"):
        await said(await root.get(f"{API}/admin/usage?{bad}"), 400)
    answer = await root.get(f"{API}/admin/usage.csv?days=2")
    assert (
        answer.headers["content-type"].startswith("text/csv") and "attachment" in answer.headers["content-disposition"]
    )
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [(row["user"], row["backend"], row["gpu_s"], row["result"]) for row in rows] == [
        ("'@Ann", "'=gpu", "2.5", "succeeded"),
        ("Ben", "'=gpu", "4.0", "succeeded"),
        ("Ben", "'=gpu", "5.0", "succeeded"),
    ]
    sums = list(csv.reader(io.StringIO((await root.get(f"{API}/admin/usage.csv?by=user")).text)))
    assert sums[1][:2] == ["Ben", "2"] and sums[2][0] == "'@Ann"
    page = (await root.get("/cluster/admin/usage?days=7", headers=HTML)).text
    assert "9.0 s" in page and "@Ann" in page
    async with server.signed_in("Ben") as his:
        own = await said(await his.get(f"{API}/usage"))
        assert own["by"] == "day" and own["total"]["jobs"] == 2
        assert "Ann" not in (await his.get(f"{API}/usage?by=user")).text
        assert len((await his.get(f"{API}/usage.csv")).text.splitlines()) == 3
        assert "9.0 s of GPU time and 2 jobs" in (await his.get("/cluster/account", headers=HTML)).text
