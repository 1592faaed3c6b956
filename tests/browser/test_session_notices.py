"""What a person in front of the canvas is told of their session: a crash, new nodes or models, a crash loop."""

import asyncio

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.visitor import Visitor
from tests.system.people import Someone
from tests.system.session_process import kill_session

pytestmark = pytest.mark.asyncio(loop_scope="package")

CRASHED = "Your session ended unexpectedly and was brought back. Jobs are not touched."
GAVE_UP = "Your session ended several times within a minute"
WAIT_MS = 30_000


async def kill(visitor: Visitor) -> None:
    """SIGKILL to the person's session."""
    someone = Someone(visitor.cluster, visitor.person)
    await kill_session(someone)
    await someone.comfy.close()


async def refresh(visitor: Visitor) -> None:
    """An administrator refreshes what sessions start from; returns when it is done."""
    name = f"root-of-{visitor.person.name}"
    root = await asyncio.to_thread(visitor.cluster.user, name, admin=True)
    async with visitor.cluster.client(root) as client:
        assert (await client.post("/cluster/api/v1/admin/sessions/refresh")).status_code == 200
        while (await client.get("/cluster/api/v1/admin/sessions")).json()["refresh"]["state"] != "done":
            await asyncio.sleep(0.1)


async def test_a_crash_is_mended_and_told_and_a_loop_of_them_leads_to_the_log(visit: Visit) -> None:
    ann = await visit("ann")
    webui = await ann.open()
    await kill(ann)
    await expect(ann.page.get_by_text(CRASHED).filter(visible=True).first).to_be_visible(timeout=WAIT_MS)
    await webui.write_prompt("after the crash")
    await webui.save_as("Still here")
    await webui.run()
    await webui.picture()
    assert ann.problems() == []
    await ann.show_cluster_tab()
    while await ann.status("/settings") == 200:
        await kill(ann)
    await expect(ann.page.locator(".cluster-panel")).to_contain_text(GAVE_UP, timeout=WAIT_MS)
    await ann.page.goto(ann.cluster.url)
    await expect(ann.page.get_by_role("heading", name="Your workspace keeps ending")).to_be_visible(timeout=WAIT_MS)
    await expect(ann.page.locator("pre")).not_to_be_empty(timeout=WAIT_MS)
    await ann.page.get_by_role("button", name="Try again").click()
    await ann.webui.ready()
    ann.problems().clear()  # requests were refused while it was down


async def test_new_nodes_are_announced_and_a_click_brings_them(visit: Visit) -> None:
    ann = await visit("ann")
    await ann.open()
    await ann.show_cluster_tab()
    panel = ann.page.locator(".cluster-panel")
    before = (await ann.get("/cluster/api/v1/session"))["started_ms"]
    await refresh(ann)
    news = panel.locator(".cluster-news")
    await expect(news).to_contain_text("New nodes or models are available.", timeout=WAIT_MS)
    await news.get_by_role("button", name="Restart now").click()
    await expect(news).to_contain_text("Reload the page to see new panels", timeout=WAIT_MS)
    session = await ann.get("/cluster/api/v1/session")
    assert session["started_ms"] > before and not session["outdated"]
