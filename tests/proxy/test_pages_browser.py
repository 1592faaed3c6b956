"""The control pages in a real Chromium: what their scripts do."""

import re
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, expect

from tests.proxy.control_server import PASSWORD, Server, serving
from tests.proxy.signed_in_page import sign_in

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]
PROMPT = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox"}}}
BUSY = '{"error": {"type": "unavailable", "message": "The server is full.", "details": "", "extra_info": {}}}'
TOKEN = re.compile(r"^cct_[A-Za-z0-9_-]{43}$")


async def test_home_follows_the_queue_and_cancels(server: Server, context: BrowserContext) -> None:
    page = await sign_in(context, server, "Ann")
    await expect(page.get_by_text("Nothing is queued")).to_be_visible()
    ann = await server.cluster.people.access.users.by_name("ann")
    assert ann is not None
    await server.job(ann, PROMPT, "a1")
    row = page.get_by_role("listitem").filter(has_text="a red fox")
    await expect(row.get_by_text("Waiting")).to_be_visible(timeout=20_000)
    await row.get_by_role("button").click()
    await page.get_by_role("button", name="Leave as is").click()
    await expect(page.locator("#ask")).to_be_hidden()
    await row.get_by_role("button").click()
    await page.get_by_role("button", name="Cancel the job", exact=True).click()
    await expect(row.get_by_text("Cancelled")).to_be_visible(timeout=20_000)
    await page.close()


async def test_a_refresh_keeps_what_the_reader_does(server: Server, context: BrowserContext) -> None:
    page = await sign_in(context, server, "root")
    await page.goto(f"{server.url}/cluster/admin/")
    await page.get_by_label("Address").fill("http://half-typed")
    menu = page.get_by_role("listitem").filter(has_text="Ann").locator("summary")
    await menu.click()
    await page.get_by_label("Find a user").focus()
    await server.user("Zoe")
    await expect(page.get_by_role("listitem").filter(has_text="Zoe")).to_be_visible(timeout=20_000)
    await expect(page.get_by_label("Address")).to_have_value("http://half-typed")
    await expect(page.get_by_role("button", name="Make administrator")).to_be_visible()
    await expect(page.get_by_label("Find a user")).to_be_focused()
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("button", name="Make administrator")).to_be_hidden()
    await expect(menu).to_be_focused()
    await page.close()


async def test_a_token_is_shown_once(server: Server, context: BrowserContext) -> None:
    page = await sign_in(context, server, "Ann")
    await page.goto(f"{server.url}/cluster/account")
    await page.get_by_label("What it is for").fill("laptop")
    await page.get_by_role("button", name="Create token").click()
    shown = page.locator("#secret-value")
    await expect(shown).to_have_text(TOKEN)
    token = await shown.inner_text()
    await page.get_by_role("button", name="Close").click()
    await expect(page.get_by_text("never used")).to_be_visible()
    await expect(shown).to_be_empty()  # on the dialog's close event, which may come after the click's return
    assert token not in await page.content()
    await page.close()


async def test_the_next_person_finds_no_drafts(server: Server, context: BrowserContext) -> None:
    page = await sign_in(context, server, "Ann")
    await page.evaluate("localStorage.setItem('workflow', 'ann'); window.name = 'ann'")
    await page.get_by_role("button", name="Sign out").click()
    await page.wait_for_url("**/cluster/login")
    await page.get_by_label("User name").fill("root")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{server.url}/cluster/")
    assert await page.evaluate("[localStorage.length, window.name]") == [0, ""]
    await page.close()


async def test_the_starting_page_starts_the_session_and_goes_on(tmp_path: Path, context: BrowserContext) -> None:
    async with serving(tmp_path, alive=True) as server:
        await server.user("Ann")
        page = await sign_in(context, server, "Ann")
        await page.route("**/session/start", lambda route: route.fulfill(status=503, body=BUSY))
        await page.goto(f"{server.url}/cluster/starting?next=/cluster/account")
        await expect(page.get_by_role("alert")).to_have_text("The server is full.")
        await page.unroute("**/session/start")
        await page.get_by_role("button", name="Try again").click()
        await page.wait_for_url(f"{server.url}/cluster/account")  # the starting page names it in its query
        await page.goto(f"{server.url}/cluster/")
        await expect(page.get_by_text("Running")).to_be_visible()
        await page.get_by_role("button", name="Stop").click()
        await page.locator("#ask").get_by_role("button", name="Stop").click()
        await expect(page.get_by_text("Not running")).to_be_visible(timeout=20_000)
        await page.close()


async def test_nothing_is_wider_than_a_phone(server: Server, context: BrowserContext) -> None:
    page = await sign_in(context, server, "root")
    await page.set_viewport_size({"width": 390, "height": 844})
    ann = await server.cluster.people.access.users.by_name("ann")
    assert ann is not None
    long = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "w" * 300}}}
    await server.running(await server.job(ann, long, "a1"))
    await server.cluster.work.registry.add(f"http://{'long-name.' * 20}example:8188", "rack" * 10)
    for path in ("", "gallery", "account", "admin/", "admin/groups", "admin/usage"):
        await page.goto(f"{server.url}/cluster/{path}")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390, path
    await page.close()
