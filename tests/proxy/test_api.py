"""The JSON API on a real server: every operation, foreign ids, bad bodies, and the document that describes it."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from backend_pool.comfy.result import Result
from backend_pool.job_state import JobState
from proxy.api.table import OPERATIONS
from tests.proxy.api_answers import error
from tests.proxy.control_server import API, HTML, PASSWORD, Server, serving

PROMPT = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox"}}}
PICTURE = {"filename": "a b&c.png", "subfolder": "x", "type": "output"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        await running.user("root", admin=True)
        yield running


async def test_without_a_login_everything_is_401(server: Server) -> None:
    async with server.browser() as stranger:
        for operation in OPERATIONS:
            path = API + operation.path.replace("{id}", "1")
            answer = await stranger.request(operation.method, path, json={})
            assert answer.status_code == 401, path
            assert error(answer)["type"] == "not_authenticated"
        assert (await stranger.get(f"{API}/openapi.json")).status_code == 401


async def test_administration_is_for_administrators(server: Server) -> None:
    await server.user("Ann")
    async with server.signed_in("Ann") as ann:
        for operation in OPERATIONS:
            if operation.admin:
                path = API + operation.path.replace("{id}", "1")
                answer = await ann.request(operation.method, path, json={})
                assert answer.status_code == 403, path
                assert error(answer)["type"] == "forbidden"


async def test_me_and_every_way_to_send_a_token(server: Server) -> None:
    await server.user("Ann")
    async with server.signed_in("Ann") as ann:
        assert (await ann.get(f"{API}/me")).json()["via"] == "login"
        made = (await ann.post(f"{API}/tokens", json={"name": "laptop"})).json()
    token = made["token"]
    assert re.fullmatch(r"[A-Za-z0-9._~-]+", token) and token.startswith(made["prefix"])
    async with server.browser() as program:
        for headers, path, auth in (
            ({"Authorization": f"Bearer {token}"}, f"{API}/me", None),
            ({"Authorization": token}, f"{API}/me", None),
            ({"X-API-Key": token}, f"{API}/me", None),
            ({}, f"{API}/me", ("x", token)),
            ({}, f"{API}/me", (token, "")),
            ({}, f"{API}/me?token={token}", None),
            ({}, f"/t/{token}{API}/me", None),
        ):
            answer = await program.get(path, headers=headers, auth=auth)
            assert answer.status_code == 200, (path, headers)
            assert answer.json() | {"id": 0} == {"id": 0, "name": "Ann", "is_admin": False, "via": "token"}
        refused = await program.post(f"{API}/tokens?token={token}", json={"name": "second"})
        assert refused.status_code == 403
        change = {"current": PASSWORD, "new": "brand new one"}
        refused = await program.post(f"{API}/me/password?token={token}", json=change)
        assert refused.status_code == 403


async def test_tokens_and_logins_of_others_cannot_be_seen_or_ended(server: Server) -> None:
    await server.user("Ann")
    await server.user("Bob")
    async with server.signed_in("Ann") as ann, server.signed_in("Bob") as bob:
        token = (await ann.post(f"{API}/tokens", json={"name": "laptop"})).json()
        login = (await ann.get(f"{API}/logins")).json()["logins"][0]
        assert (await bob.get(f"{API}/tokens")).json() == {"tokens": []}
        assert [entry["current"] for entry in (await bob.get(f"{API}/logins")).json()["logins"]] == [True]
        for path in (f"/tokens/{token['id']}", f"/logins/{login['id']}"):
            answer = await bob.delete(API + path)
            assert answer.status_code == 404 and error(answer)["type"] == "not_found"
        assert (await ann.get(f"{API}/me?token={token['token']}")).status_code == 200
        assert (await ann.delete(f"{API}/tokens/{token['id']}")).status_code == 200
        assert (await ann.delete(f"{API}/tokens/{token['id']}")).status_code == 404
        ann.cookies.clear()
        assert (await ann.get(f"{API}/me?token={token['token']}")).status_code == 401


async def test_jobs_are_the_callers_own(server: Server) -> None:
    ann, bob = await server.user("Ann"), await server.user("Bob")
    first = await server.job(ann, PROMPT, "a1")
    theirs = await server.job(bob, PROMPT, "b1")
    second = await server.job(ann, PROMPT, "a2")
    await server.running(first)
    async with server.signed_in("Ann") as client:
        body = (await client.get(f"{API}/jobs")).json()
        assert body["active"] == 2
        assert [(job["prompt_id"], job["state"]) for job in body["jobs"]] == [("a1", "running"), ("a2", "queued")]
        assert body["jobs"][0]["title"] == "a red fox"
        assert (await client.post(f"{API}/jobs/{theirs.key}/cancel")).status_code == 404
        assert (await client.post(f"{API}/jobs/{second.key}/cancel")).status_code == 200
        body = (await client.get(f"{API}/jobs")).json()
        assert [(job["prompt_id"], job["state"]) for job in body["jobs"]] == [("a1", "running"), ("a2", "cancelled")]
    async with server.signed_in("root") as root:
        body = (await root.get(f"{API}/admin/jobs")).json()
        assert [(job["prompt_id"], job["title"]) for job in body["jobs"]] == [("a1", ""), ("b1", "")]
        assert (await root.post(f"{API}/admin/jobs/{theirs.key}/cancel")).status_code == 200
        assert (await root.get(f"{API}/admin/jobs")).json()["active"] == 1


async def test_pictures_are_the_callers_own_and_paged(server: Server) -> None:
    ann, bob = await server.user("Ann"), await server.user("Bob")
    odd: dict[str, Any] = {
        "text": ["x"],
        "images": [{"filename": "t.png", "subfolder": "", "type": "temp"}, "junk", {}],
    }
    for number in range(3):
        job = await server.job(ann, PROMPT, f"a{number}")
        outputs = {"9": {"images": [PICTURE | {"filename": f"{number}.png"}]}, "10": odd}
        await server.ended(job, JobState.SUCCEEDED, Result(outputs=outputs))
    await server.ended(await server.job(bob, PROMPT, "b"), JobState.SUCCEEDED, Result({"9": {"images": [PICTURE]}}))
    async with server.signed_in("Ann") as client:
        page = (await client.get(f"{API}/pictures?limit=2")).json()
        assert [picture["filename"] for picture in page["pictures"]] == ["2.png", "1.png"]
        rest = (await client.get(f"{API}/pictures?limit=2&before={page['next']}")).json()
        assert [picture["filename"] for picture in rest["pictures"]] == ["0.png"] and rest["next"] is None
    async with server.signed_in("Bob") as client:
        picture = (await client.get(f"{API}/pictures")).json()["pictures"][0]
        assert picture["url"] == "/view?filename=a%20b%26c.png&subfolder=x&type=output"
        assert picture["kind"] == "image"


async def test_a_waiting_job_says_why(server: Server) -> None:
    """To its user and to administrators, in the API and on the pages."""
    await server.job(await server.user("Ann"), PROMPT, "waits")
    server.cluster.tasks.start("dispatcher", server.cluster.work.dispatcher.watch())
    async with server.signed_in("Ann") as ann, server.signed_in("root") as root, asyncio.timeout(30):
        while server.cluster.work.dispatcher.reason(1) is None:
            await asyncio.sleep(0.02)
        for browser, path in ((ann, "/jobs"), (root, "/admin/jobs")):
            assert [job["reason"] for job in (await browser.get(API + path)).json()["jobs"]] == ["there is no backend"]
        for browser, path in ((ann, "/cluster/"), (root, "/cluster/admin/")):
            assert "there is no backend" in (await browser.get(path, headers=HTML)).text


async def test_a_failed_job_says_why(server: Server) -> None:
    ann = await server.user("Ann")
    why = [["execution_start", {}], ["execution_error", {"exception_message": "out of\nmemory"}]]
    await server.ended(await server.job(ann, PROMPT, "a"), JobState.FAILED, Result(messages=why))
    async with server.signed_in("Ann") as client:
        assert (await client.get(f"{API}/jobs")).json()["jobs"][0]["error"] == "out of memory"


async def test_changing_the_password(server: Server) -> None:
    await server.user("Ann")
    async with server.signed_in("Ann") as here, server.signed_in("Ann") as there:
        for body, status in (
            ({"current": "wrong", "new": "brand new one"}, 400),
            ({"current": PASSWORD, "new": "short"}, 400),
            ({"current": PASSWORD}, 400),
            ({"current": PASSWORD, "new": "brand new one"}, 200),
        ):
            assert (await here.post(f"{API}/me/password", json=body)).status_code == status
        assert (await here.get(f"{API}/me")).status_code == 200
        assert (await there.get(f"{API}/me")).status_code == 401


async def test_users_are_created_changed_and_reset(server: Server) -> None:
    async with server.signed_in("root") as root:
        made = await root.post(f"{API}/admin/users", json={"name": "Ann"})
        assert made.status_code == 201
        ann = made.json()
        form = {"username": "ann", "password": ann["password"]}
        async with server.browser() as client:
            assert (await client.post("/cluster/login", data=form)).status_code == 303
            assert (await root.post(f"{API}/admin/users", json={"name": "ANN"})).status_code == 409
            assert (await root.post(f"{API}/admin/users", json={"name": "<b>"})).status_code == 400
            path = f"{API}/admin/users/{ann['id']}"
            reset = await root.post(f"{path}/password", json={})
            assert reset.status_code == 200
            assert (await client.get(f"{API}/me")).status_code == 401
            form["password"] = reset.json()["password"]
            assert (await client.post("/cluster/login", data=form)).status_code == 303
            assert (await root.patch(path, json={"is_admin": True})).json()["is_admin"] is True
            assert (await client.get(f"{API}/admin/users")).status_code == 200
            assert (await root.patch(path, json={"disabled": True})).json()["disabled"] is True
            assert (await client.get(f"{API}/me")).status_code == 401
            assert (await client.post("/cluster/login", data=form)).status_code == 401
            assert (await root.post(f"{path}/session/restart")).status_code == 409
        me = (await root.get(f"{API}/me")).json()["id"]
        for change in ({"disabled": True}, {"is_admin": False}):
            assert (await root.patch(f"{API}/admin/users/{me}", json=change)).status_code == 409
        assert (await root.patch(f"{API}/admin/users/999", json={})).status_code == 404


async def test_backends_are_added_drained_and_removed(server: Server) -> None:
    async with server.signed_in("root") as root:
        for bad in ({"url": "ftp://x"}, {"url": ""}, {}, {"url": "http://a", "nmae": "typo"}):
            assert (await root.post(f"{API}/admin/backends", json=bad)).status_code == 400
        made = await root.post(f"{API}/admin/backends", json={"url": "http://127.0.0.1:9/", "name": "rack"})
        assert made.status_code == 201 and made.json()["health"] == "unknown"
        assert (await root.post(f"{API}/admin/backends", json={"url": "http://127.0.0.1:9"})).status_code == 409
        path = f"{API}/admin/backends/{made.json()['id']}"
        assert (await root.patch(path, json={"mode": "draining"})).json()["mode"] == "draining"
        assert (await root.patch(path, json={"mode": "gone"})).status_code == 400
        await server.cluster.work.pool.refresh()
        assert (await root.get(f"{API}/admin/backends")).json()["backends"][0]["health"] == "joining"
        assert (await root.delete(path)).status_code == 200
        assert (await root.delete(path)).status_code == 404
        await server.cluster.work.registry.add("http://127.0.0.1:10", "fixed", "settings")
        fixed = (await root.get(f"{API}/admin/backends")).json()["backends"][0]
        assert (await root.delete(f"{API}/admin/backends/{fixed['id']}")).status_code == 409


async def test_a_session_that_never_was_is_stopped(server: Server) -> None:
    ann = await server.user("Ann")
    async with server.signed_in("Ann") as client, server.signed_in("root") as root:
        told = (await client.get(f"{API}/session")).json()
        assert {name: value for name, value in told.items() if value} == {"user_id": ann.key, "state": "stopped"}
        assert (await client.post(f"{API}/session/stop")).status_code == 200
        assert (await root.post(f"{API}/admin/users/{ann.key}/session/stop")).status_code == 200
        assert (await root.post(f"{API}/admin/users/999/session/stop")).status_code == 404


async def test_answers_are_304_when_nothing_changed(server: Server) -> None:
    async with server.signed_in("root") as root:
        first = await root.get(f"{API}/admin/users")
        marked = {"If-None-Match": first.headers["etag"]}
        assert (await root.get(f"{API}/admin/users", headers=marked)).status_code == 304
        await server.user("Ann")
        assert (await root.get(f"{API}/admin/users", headers=marked)).status_code == 200
        assert (await root.head(f"{API}/admin/users")).content == b""
