"""A session that ends while its user works: back at once, nothing lost or refused, and no loop of crashes."""

import asyncio

import aiohttp
import pytest

from tests.cluster import Cluster
from tests.system.conftest import Newcomer
from tests.system.inside import becomes
from tests.system.people import Someone, painting
from tests.system.session_process import kill_session, session_pid

SESSION = "/cluster/api/v1/session"
NEWS = "cluster_session"
LOG = "session ready"


@pytest.fixture
async def eve(newcomer: Newcomer) -> Someone:
    """A user with a running session."""
    someone = await newcomer("eve")
    assert (await someone.comfy.post("/settings/Mark", "kept")).status == 200
    return someone


async def told(someone: Someone) -> dict[str, object]:
    """Their session as the API tells it."""
    answer = await someone.comfy.get(SESSION)
    assert answer.status == 200
    found = answer.json()
    assert isinstance(found, dict)
    return found


async def test_a_crash_under_an_open_tab_is_mended_without_a_request_and_told(eve: Someone) -> None:
    async with eve.comfy.socket("tab", {}) as socket, eve.comfy.socket("program") as program:
        prompt_id = await eve.comfy.submit(painting(1, steps=300), "tab")
        await socket.until(lambda frame: frame.kind == "progress")
        await kill_session(eve)
        await socket.until(lambda frame: frame.kind == NEWS)  # it ended
        await socket.until(lambda frame: frame.kind == NEWS)  # it is back
        session = await told(eve)
        assert (session["state"], session["gave_up"]) == ("running", False)
        assert isinstance(session["crashed_ms"], int)
        assert (await socket.job(prompt_id))[-2].kind == "execution_success"
        ended = "status", {"status": {"exec_info": {"queue_remaining": 0}}}
        await program.until(lambda frame: (frame.kind, frame.data) == ended)
        assert NEWS not in {frame.kind for frame in program.frames}
    job = await eve.job(prompt_id)
    assert job["status"] == "completed" and len(eve.files()) == 1


async def test_no_picture_is_missed_in_the_moment_of_a_crash(eve: Someone) -> None:
    """Requests hit the dying process from its last moment on: each is asked again of the next one."""
    stop = asyncio.Event()
    statuses: list[int] = []

    async def reader() -> None:
        while not stop.is_set():
            statuses.append((await eve.comfy.get("/settings/Mark")).status)

    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(reader())
        await becomes(lambda: len(statuses) > 20)
        await kill_session(eve)
        seen = len(statuses)
        await becomes(lambda: len(statuses) > seen + 40)
        stop.set()
    assert set(statuses) == {200}


async def test_no_request_notices_a_restart(eve: Someone) -> None:
    stop = asyncio.Event()
    statuses: list[int] = []

    async def visitor(number: int) -> None:
        while not stop.is_set():
            statuses.append((await eve.comfy.get("/settings/Mark")).status)
            statuses.append((await eve.comfy.post(f"/settings/Mark{number}", "x" * 1000)).status)

    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(visitor(number))
        for _ in range(2):
            assert (await eve.comfy.post(f"{SESSION}/restart")).status == 200
            seen = len(statuses)
            await becomes(lambda seen=seen: len(statuses) > seen + 20)  # type: ignore[misc]
        stop.set()
    assert set(statuses) == {200}


async def test_a_session_that_keeps_crashing_shows_its_log_and_waits_for_its_user(eve: Someone) -> None:
    for _ in range(3):
        assert (await eve.comfy.get("/settings/Mark")).status == 200
        await kill_session(eve)
    answer = await eve.comfy.get("/settings/Mark")
    assert answer.status == 503 and "3 times within a minute" in answer.json()["error"]["message"]
    assert (await told(eve))["gave_up"] is True
    page = await eve.comfy.get("/", headers={"Accept": "text/html"}, allow_redirects=False)
    assert (page.status, page.headers["Location"]) == (303, "/cluster/starting")
    shown = (await eve.comfy.get("/cluster/starting", headers={"Accept": "text/html"})).body.decode()
    assert "Your workspace keeps ending" in shown and "data-broken=" in shown and LOG in shown
    assert (await eve.comfy.post(f"{SESSION}/start")).status == 503  # what the page does by itself starts nothing
    assert (await eve.comfy.post(f"{SESSION}/restart")).status == 200  # its button does
    assert (await eve.comfy.get("/settings/Mark")).json() == "kept"


@pytest.mark.parametrize(("method", "path"), [("POST", "/api/v2/manager/reboot"), ("GET", "/manager/reboot")])
async def test_the_managers_restart_is_the_users_own(eve: Someone, ann: Someone, method: str, path: str) -> None:
    assert (await ann.comfy.get("/settings")).status == 200
    others, before = await session_pid(ann), await session_pid(eve)
    async with eve.comfy.socket("tab") as socket:
        answer = await eve.comfy.call(method, path)
        assert (answer.status, answer.json()) == (200, {})
        while (message := await socket.ws.receive()).type is not aiohttp.WSMsgType.CLOSE:
            assert message.type is aiohttp.WSMsgType.TEXT
        assert message.data == 1012  # upon which the frontend reconnects, as its manager waits for
    assert await session_pid(eve) != before
    assert await session_pid(ann) == others
    assert (await told(eve))["crashed_ms"] is None


async def test_another_sites_picture_tag_restarts_nothing(eve: Someone, cluster: Cluster) -> None:
    before = await session_pid(eve)
    form = {"username": eve.person.name, "password": eve.person.password}
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(cookie_jar=jar) as browser:
        async with browser.post(f"{cluster.url}/cluster/login", data=form, allow_redirects=False) as answer:
            assert answer.status == 303
        headers = {"Sec-Fetch-Site": "cross-site"}
        async with browser.get(f"{cluster.url}/manager/reboot", headers=headers) as answer:
            assert answer.status == 403
    assert await session_pid(eve) == before
    assert (await eve.comfy.call("PUT", "/manager/reboot")).status == 405


async def test_an_administrator_sees_restarts_and_stops_sessions(eve: Someone, newcomer: Newcomer) -> None:
    root = await newcomer("root", admin=True)
    mine = f"/cluster/api/v1/admin/users/{eve.person.id}/session"
    memory = None
    async with asyncio.timeout(30):
        while memory is None:  # a look spends little time on it, and leaves out what it did not get to
            listed = (await root.comfy.get("/cluster/api/v1/admin/sessions")).json()
            (session,) = [entry for entry in listed["sessions"] if entry["user_id"] == eve.person.id]
            memory = session["memory"]
    assert memory > 1 << 20 and session["failed_packs"] == []
    assert set(listed) == {"sessions", "refresh", "failed_packs", "broken"}
    before = await session_pid(eve)
    assert (await root.comfy.post(f"{mine}/restart")).status == 200
    assert await session_pid(eve) != before
    assert (await root.comfy.post(f"{mine}/stop")).json()["state"] == "stopped"
    assert (await eve.comfy.post("/cluster/api/v1/admin/sessions/refresh")).status == 403
