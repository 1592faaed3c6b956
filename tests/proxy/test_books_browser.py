"""The pages of groups and reservations in a real Chromium: their forms say what the API takes."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, expect

from tests.proxy.control_server import Server
from tests.proxy.signed_in_page import sign_in

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]
WAIT_MS = 20_000


@pytest_asyncio.fixture(loop_scope="module")
async def server(server: Server) -> Server:
    """With a backend."""
    await server.cluster.work.registry.add("http://127.0.0.1:9", "gpu 1")
    await server.cluster.work.pool.refresh()
    return server


@pytest_asyncio.fixture(loop_scope="module")
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A window far from UTC."""
    async with await browser.new_context(timezone_id="Asia/Kolkata") as window:
        yield window


async def test_a_group_and_its_reservation(server: Server, context: BrowserContext) -> None:
    """Times are the reader's own, five and a half hours ahead of UTC."""
    ann = await server.cluster.people.access.users.by_name("ann")
    assert ann is not None
    page = await sign_in(context, server, "root")
    await page.goto(f"{server.url}/cluster/admin/groups")
    await page.get_by_label("Name", exact=True).fill("class")
    await page.get_by_role("button", name="Create group").click()
    card = page.get_by_role("article").filter(has_text="class")
    await card.get_by_label("User name").fill("nobody")
    await card.get_by_role("button", name="Add").click()
    complaint = page.get_by_text("There is no user 'nobody'.")
    await complaint.click(timeout=WAIT_MS)
    await expect(complaint).to_have_count(0)
    await card.get_by_label("User name").fill("ann")
    await card.get_by_role("button", name="Add").click()
    await expect(card.get_by_role("listitem").filter(has_text="Ann")).to_be_visible(timeout=WAIT_MS)
    await card.get_by_text("Change", exact=True).click()
    await card.get_by_label("Weight").fill("2.5")
    await card.get_by_label("Backends with labels").fill("fast, gpu=a100")
    await card.get_by_label("Running at once").fill("3")
    await card.get_by_role("button", name="Save").click()
    await expect(card.get_by_text("weight 2.5")).to_be_visible(timeout=WAIT_MS)
    share = server.cluster.work.groups.share(ann.key)
    assert (share.weight, share.running_limit, share.labels) == (2.5, 3, frozenset({"fast", "gpu=a100"}))
    await card.get_by_text("Change", exact=True).click()  # saved, it closed
    await expect(card.get_by_label("Running at once")).to_have_value("3")
    await card.get_by_label("Running at once").fill("")
    await card.get_by_role("button", name="Save").click()
    await expect(card.get_by_text("3 at a time")).to_have_count(0, timeout=WAIT_MS)
    assert server.cluster.work.groups.share(ann.key).running_limit == 1
    await page.get_by_label("Backends", exact=True).fill("gpu 1")
    day = f"{datetime.now(UTC).year + 2}-03-02"
    await page.get_by_label("From (your time)").fill(f"{day}T10:00")
    await page.get_by_label("To (your time)").fill(f"{day}T11:00")
    await page.get_by_role("button", name="Reserve").click()
    row = page.get_by_role("listitem").filter(has_text="gpu 1")
    await expect(row).to_contain_text(f"{day} 04:30 to {day} 05:30 UTC", timeout=WAIT_MS)
    (reservation,) = server.cluster.work.groups.upcoming()
    assert reservation.begin_ms == datetime.fromisoformat(f"{day}T04:30+00:00").timestamp() * 1000
    await row.get_by_role("button").click()
    await page.locator("#ask").get_by_role("button", name="Remove").click()
    await expect(page.get_by_text("Nothing is reserved.")).to_be_visible(timeout=WAIT_MS)
    await page.close()


async def test_ones_own_jobs_may_wait(server: Server, context: BrowserContext) -> None:
    page = await sign_in(context, server, "Ann")
    switch = page.get_by_role("switch", name="My jobs may wait")
    for state, lane in (("true", "batch"), ("false", "interactive")):
        await switch.click()
        await expect(switch).to_have_attribute("aria-checked", state, timeout=WAIT_MS)
        ann = await server.cluster.people.access.users.by_name("ann")
        assert ann is not None and server.cluster.work.groups.lane(ann.key) == lane
    await page.close()
