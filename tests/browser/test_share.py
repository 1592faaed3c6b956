"""One's share of the pool in the WebUI: the switch for work that can wait, and what a used-up quota looks like."""

import asyncio

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Visit

pytestmark = pytest.mark.asyncio(loop_scope="package")

API = "/cluster/api/v1"
WAIT_MS = 30_000


async def test_jobs_may_wait_and_a_used_up_quota_is_told_where_its_user_looks(visit: Visit) -> None:
    ann = await visit("ann")
    name = f"root-of-{ann.person.name}"
    root = await asyncio.to_thread(ann.cluster.user, name, admin=True)
    webui = await ann.open()
    await ann.show_cluster_tab()
    panel = ann.page.locator(".cluster-panel")
    await panel.get_by_label("My jobs may wait").check()
    await ann.page.wait_for_function(f"async () => (await (await fetch('{API}/share')).json()).lane === 'batch'")
    async with ann.cluster.client(root) as client:
        made = await client.post(f"{API}/admin/groups", json={"name": name, "quota_s": 0.001, "quota_period": "month"})
        group = f"{API}/admin/groups/{made.json()['id']}"
        assert (await client.post(f"{group}/members", json={"user": ann.person.name})).status_code == 200
        await webui.write_prompt("the last one for this month")
        await webui.run()
        await webui.picture()
        told = f"Your group {name} has used its GPU time for this month."
        await expect(panel.get_by_text(told)).to_be_visible(timeout=WAIT_MS)
        await ann.shot("quota-used-up")
        assert (await webui.press_run()).status == 429
        error = ann.page.get_by_role("status").filter(has_text="Error").filter(has_text=told)
        await expect(error).to_be_visible(timeout=WAIT_MS)
        await ann.shot("prompt-refused")
        assert (await client.patch(group, json={"quota_s": None})).status_code == 200
        await expect(panel.get_by_text(told)).to_have_count(0, timeout=WAIT_MS)
    ann.problems().clear()  # the refused prompt
