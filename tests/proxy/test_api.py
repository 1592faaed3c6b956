"""The JSON API on a real server: every operation, foreign ids, bad bodies, and the document that describes it."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from backend_pool.job_state import JobState
from backend_pool.jobs.store import Result
from proxy.api.openapi import document
from proxy.api.table import BASE, OPERATIONS
from proxy.views.jobs import error_of, title_of
from tests.proxy.control_server import API, HTML, PASSWORD, Server, serving

PROMPT = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox"}}}
PICTURE = {"filename": "a b&c.png", "subfolder": "x", "type": "output"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        await running.user("root", admin=True)
        yield running


def error(answer: httpx.Response) -> dict[str, Any]:
    """The error object, checked for ComfyUI's shape."""
    body = answer.json()
    assert set(body) == {"error"} and set(body["error"]) == {"type", "message", "details", "extra_info"}
    assert body["error"]["extra_info"]["request_id"] == answer.headers["x-request-id"]
    found: dict[str, Any] = body["error"]
    return found


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


async def test_malformed_bodies_are_400(server: Server) -> None:
    async with server.signed_in("root") as root:
        for body in (b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b'{"name": 5}', b'{"name": null}', b"[" * 60_000):
            answer = await root.post(f"{API}/tokens", content=body)
            assert answer.status_code == 400 and error(answer)["type"] == "bad_request", body[:9]


async def test_a_bad_body_is_not_repeated_in_the_answer(server: Server) -> None:
    async with server.signed_in("root") as root:
        answer = await root.post(f"{API}/me/password", json={"current": "my secret", "new": 5, "x": "my secret"})
        assert answer.status_code == 400 and "my secret" not in answer.text


async def test_oversized_bodies_are_413_before_they_are_read(server: Server) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1024

    async with server.signed_in("root") as root:
        for content in (b"x" * 70_000, endless()):
            answer = await root.post(f"{API}/tokens", content=content)
            assert answer.status_code == 413 and error(answer)["type"] == "too_large"


ODD_REQUESTS = (
    ("GET", "/nothing", 404),
    ("GET", "/", 404),
    ("PUT", "/me", 405),
    ("GET", "/jobs?limit=x", 400),
    ("GET", "/jobs?limit=0", 400),
    ("GET", "/pictures?before=-1", 400),
    ("POST", "/jobs/x/cancel", 404),
    ("POST", "/jobs/0/cancel", 404),
    ("POST", f"/jobs/{'9' * 19}/cancel", 404),
    ("POST", f"/jobs/{'9' * 5000}/cancel", 404),
    ("POST", "/jobs/%D9%A3/cancel", 404),
    ("DELETE", "/tokens/1%2F2", 404),
    ("DELETE", "/logins/..", 404),
    ("DELETE", "/logins/%00", 404),
    ("POST", "/openapi.json", 405),
)


async def test_odd_requests_are_answered_in_json(server: Server) -> None:
    async with server.signed_in("root") as root:
        for method, path, status in ODD_REQUESTS:
            answer = await root.request(method, API + path)
            assert answer.status_code == status, path[:40]
            error(answer)


async def test_the_document_is_served_and_every_route_is_in_it(server: Server) -> None:
    async with server.signed_in("root") as root:
        served = (await root.get(f"{API}/openapi.json")).json()
    assert served == json.loads(json.dumps(document(OPERATIONS, BASE)))
    assert served["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, methods in served["paths"].items() for method in methods}
    assert described == {(operation.method, BASE + operation.path) for operation in OPERATIONS}


def test_the_document_holds_together() -> None:
    described = document(OPERATIONS, BASE)
    schemas = described["components"]["schemas"]
    for reference in _references(described):
        assert reference.removeprefix("#/components/schemas/") in schemas
    ids = [operation["operationId"] for path in described["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    for path, methods in described["paths"].items():
        for operation in methods.values():
            declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert declared == set(re.findall(r"\{(\w+)\}", path))
            assert operation["summary"] and operation["description"] and len(operation["responses"]) == 2


def test_every_operation_is_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    documented = set(re.findall(r"^\| `([A-Z]+) (\S+)` \|", text, re.MULTILINE))
    assert documented == {(operation.method, operation.path) for operation in OPERATIONS}


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        (PROMPT, "a red fox"),
        ({"1": {"class_type": "X", "inputs": {"text": "file"}}, "2": PROMPT["1"]}, "a red fox"),
        ({"1": {"class_type": "A", "inputs": {"text": ["2", 0]}}, "2": {"class_type": "B"}}, "A, B"),
        ({"1": {"class_type": "A", "inputs": {"text": "  a \n\n b  "}}}, "a b"),
        ({"1": {"class_type": "A", "inputs": {"text": "x" * 500}}}, "x" * 89 + "…"),
        ({"1": {"class_type": "A", "inputs": []}, "2": "junk", "3": None}, "A"),
        ({}, "Empty prompt"),
        (None, "Empty prompt"),
        ([], "Empty prompt"),
    ],
)
def test_titles(prompt: object, title: str) -> None:
    assert title_of(prompt) == title


@pytest.mark.parametrize("messages", [None, [], [["execution_error", {}]], [["execution_error"]], ["x"], [[1, 2, 3]]])
def test_odd_messages_have_no_error(messages: object) -> None:
    assert error_of(messages) == ""


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
