"""What the pages and the API say of sessions: a refresh under way, done and failed, packs that failed, crash loops."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.base.clock import now_ms
from tests.proxy.control_server import API, HTML, Server, serving
from user_sessions.model import SessionRow
from user_sessions.report import FailedNode, Refresh, Report
from user_sessions.state import SessionState, Transition, remember

HOSTILE = "<img src=x onerror=alert(1)>"
SECRET_LOG = "Traceback in /srv/public/custom_nodes/bad-pack"


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        await running.user("root", admin=True)
        await running.user("Ann")
        yield running


async def admin_page(server: Server) -> str:
    async with server.signed_in("root") as root:
        answer = await root.get("/cluster/admin/", headers=HTML)
        assert answer.status_code == 200
        return answer.text


async def crashed(server: Server, times: int) -> None:
    """Ann's row as after that many crashes in a row."""
    ann = await server.cluster.people.access.users.by_name("Ann")
    assert ann is not None
    history = "[]"
    for _ in range(times):
        history = remember(history, Transition(now_ms(), SessionState.STARTING, SessionState.RUNNING, "answers"))
        history = remember(history, Transition(now_ms(), SessionState.RUNNING, SessionState.FAILED, "gone"))
    row = SessionRow(
        user_id=ann.key,
        slug=ann.slug,
        state="failed",
        desired="running",
        error=f"It ended.\n{HOSTILE}",
        history=history,
    )
    await server.cluster.db.write(lambda s: s.add(row))


@pytest.mark.parametrize(
    ("refresh", "shown", "missing"),
    [
        (Refresh(), (), ("Refreshed", "Warming")),
        (Refresh("warming", now_ms() - 8000, None, "", "root"), ("beside the old: ", "disabled"), ("Refreshed",)),
        (Refresh("done", 1, now_ms(), "", "root"), ("Refreshed just now by root.",), ("from before",)),
        (Refresh("failed", 1, now_ms(), HOSTILE, "root"), ("still start from the old one", "&lt;img"), (HOSTILE,)),
    ],
    ids=["none", "warming", "done", "failed"],
)
async def test_the_admin_page_follows_a_refresh(
    server: Server, refresh: Refresh, shown: tuple[str, ...], missing: tuple[str, ...]
) -> None:
    if refresh.ended_ms is not None:
        refresh = replace(refresh, ended_ms=now_ms())  # a suite may take its time between here and the table
    server.cluster.people.sessions.report = Report(refresh)
    page = await admin_page(server)
    for text in shown:
        assert text in page
    for text in missing:
        assert text not in page


async def test_a_failed_refresh_shows_the_hosts_log_to_administrators(server: Server, tmp_path: Path) -> None:
    (tmp_path / "logs" / "session-host.log").write_text(f"one\n{SECRET_LOG}\n")
    server.cluster.people.sessions.report = Report(Refresh("failed", 1, 2, "no", "root"))
    assert SECRET_LOG in await admin_page(server)
    async with server.signed_in("root") as root:
        told = (await root.get(f"{API}/admin/sessions")).json()["refresh"]
        assert (told["state"], told["error"], told["by"]) == ("failed", "no", "root") and SECRET_LOG in told["log"]


async def test_failed_packs_are_named_to_all_and_explained_to_administrators(server: Server) -> None:
    packs = (FailedNode("bad-pack", f"No module named {HOSTILE}", SECRET_LOG), FailedNode("other", "no", ""))
    server.cluster.people.sessions.report = Report(failed_nodes=packs)
    page = await admin_page(server)
    assert "2 node packs failed to load" in page and "bad-pack" in page and SECRET_LOG in page and HOSTILE not in page
    async with server.signed_in("Ann") as ann:
        home = (await ann.get("/cluster/", headers=HTML)).text
        assert "2 node packs failed to load" in home and "bad-pack" in home
        assert SECRET_LOG not in home and HOSTILE not in home
        told: list[dict[str, Any]] = (await ann.get(f"{API}/session")).json()["failed_packs"]
        assert [pack["pack"] for pack in told] == ["bad-pack", "other"] and SECRET_LOG not in str(told)


async def test_a_crash_loop_is_shown_without_being_started_again(server: Server) -> None:
    await crashed(server, 3)
    async with server.signed_in("Ann") as ann:
        page = (await ann.get("/cluster/starting", headers=HTML)).text
        assert "Your workspace keeps ending" in page and "data-broken=" in page
        assert "&lt;img src=x" in page and HOSTILE not in page
        assert "several times within a minute" in (await ann.get("/cluster/", headers=HTML)).text
        told = (await ann.get(f"{API}/session")).json()
        assert told["gave_up"] is True and told["log"] == HOSTILE
    page = await admin_page(server)
    assert "crashed just now" in page and "Restart the session of Ann" in page


async def test_one_crash_is_no_loop(server: Server) -> None:
    await crashed(server, 1)
    async with server.signed_in("Ann") as ann:
        page = (await ann.get("/cluster/starting", headers=HTML)).text
        assert "data-broken=" not in page and "Starting your workspace" in page


async def test_looking_starts_nothing(server: Server) -> None:
    await admin_page(server)
    assert not (server.cluster.people.keeper.run / "host.json").exists()


async def test_the_administrators_page_says_when_no_session_can_be_started(server: Server) -> None:
    assert "Sessions cannot be started" not in await admin_page(server)
    server.cluster.people.sessions.report = Report(Refresh("failed", 1, now_ms(), "no", "root"), broken=HOSTILE)
    page = await admin_page(server)
    assert "Sessions cannot be started. logs/session-host.log" in page and "&lt;img" in page and HOSTILE not in page
    assert "failed just now." in page and "still start from" not in page
    async with server.signed_in("root") as root:
        assert (await root.get(f"{API}/admin/sessions")).json()["broken"] == HOSTILE


async def test_a_backends_card_says_how_much_of_ours_is_in_it(server: Server) -> None:
    server.cluster.work.registry.add_now("http://gpu-1:8188")
    assert '<span class="tag">stock</span>' in await admin_page(server)
