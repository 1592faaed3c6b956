"""The workspace over time: saved workflows, restarts, first visits, another person at the same computer, phones."""

import asyncio
import json
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, ViewportSize, expect

from tests import chromium
from tests.browser.conftest import Visit
from tests.browser.runtimes import Runtime
from tests.browser.visitor import Visitor
from tests.system.inside import fault
from tests.system.people import Someone, painting

pytestmark = pytest.mark.asyncio(loop_scope="package")

PHONE: ViewportSize = {"width": 390, "height": 844}
PAGES = ("/cluster/", "/cluster/gallery", "/cluster/account")


async def test_settings_workflows_and_files_survive_a_restart_from_the_sidebar(visit: Visit) -> None:
    ann = await visit("ann")
    webui = await ann.open()
    await ann.page.evaluate("() => window.app.extensionManager.setting.set('Comfy.Graph.CanvasInfo', false)")
    await webui.write_prompt("kept for later")
    await webui.save_as("My fox")
    await webui.run()
    address = await webui.picture()
    await ann.show_cluster_tab()
    panel = ann.page.locator(".cluster-panel")
    await expect(panel).to_contain_text(ann.person.name)
    await ann.shot("cluster-tab")
    before = await webui.api_prompt()
    started_ms = (await ann.get("/cluster/api/v1/session"))["started_ms"]
    async with ann.page.expect_response("**/cluster/api/v1/session/restart") as restarted:
        await panel.get_by_role("button", name="Restart my session").click()
    assert (await restarted.value).status == 200
    assert (await ann.get("/cluster/api/v1/session"))["started_ms"] > started_ms
    await webui.reload()
    assert await webui.api_prompt() == before
    assert await ann.page.evaluate("() => window.app.extensionManager.setting.get('Comfy.Graph.CanvasInfo')") is False
    await ann.page.get_by_test_id("workflows-tab-button").first.click()
    await ann.page.get_by_text("My fox", exact=False).first.wait_for()
    await ann.shot("after-a-restart")
    assert len(await webui.picture_bytes(address)) > 1000
    await webui.run()
    await webui.picture()


async def test_the_cluster_tab_shows_the_queue_and_cancels(visit: Visit) -> None:
    ann = await visit("ann")
    webui = await ann.open()
    await ann.show_cluster_tab()
    panel = ann.page.locator(".cluster-panel")
    await expect(panel).to_contain_text("No jobs waiting or running.")
    async with fault(ann.cluster, fault="hang_job", node="KSampler", step=4, heeds_interrupt=True):
        await webui.set_widget("KSampler", "seed", 41)
        await webui.write_prompt("first in the panel")
        await webui.run()
        await webui.write_prompt("second in the panel")
        await webui.run()
        rows = panel.locator(".cluster-job")
        await expect(rows).to_have_count(2)
        await expect(rows.first).to_contain_text("first in the panel")
        await expect(rows.first).to_contain_text("Running")
        await expect(rows.nth(1)).to_contain_text("Waiting, place 1 in line")
        await expect(ann.page.locator(".cluster-place")).to_contain_text("running")
        await rows.nth(1).get_by_role("button", name="Cancel").click()
        await expect(rows).to_have_count(1)
        await rows.first.get_by_role("button", name="Cancel").click()
        await expect(panel).to_contain_text("No jobs waiting or running.")
    await expect(ann.page.locator(".cluster-place")).to_contain_text("Cluster")
    await webui.idle()


async def test_a_first_visit_shows_a_workflow_this_pool_can_run(
    browser: Browser, runtime: Runtime, tmp_path: Path
) -> None:
    options = ["--step-ms", "1", "--checkpoints", "only.safetensors", "--without", "diffusion_models"]
    env = {"COMFY_CLUSTER_ENGINE_ARGS": json.dumps(options)}
    with await asyncio.to_thread(runtime.start, tmp_path, "--engines", "1", env=env) as cluster:
        context = await chromium.window(browser)
        ann = Visitor(cluster, await asyncio.to_thread(cluster.user, "ann"), context, await chromium.tab(context))
        await ann.sign_in()
        webui = await ann.open()
        assert "CheckpointLoaderSimple" in await webui.node_types()
        assert await ann.page.locator("[role=dialog]:visible").count() == 0
        await webui.run()
        assert len(await webui.picture_bytes(await webui.picture())) > 1000
        assert ann.problems() == []
        await ann.leave()


async def test_the_next_person_at_this_computer_finds_nothing_of_the_last(visit: Visit) -> None:
    ann, ben = await visit("ann"), await visit("ben")
    webui = await ann.open()
    await webui.write_prompt("a secret of hers")
    await webui.run()
    await webui.picture()
    await ann.page.wait_for_function("() => JSON.stringify(localStorage).includes('a secret of hers')")
    await ann.page.goto(f"{ann.cluster.url}/cluster/")
    await ann.page.get_by_role("button", name="Sign out").click()
    await ann.page.wait_for_url("**/cluster/login")
    next_one = Visitor(ann.cluster, ben.person, ann.context, ann.page)
    await next_one.sign_in()
    stored = await ann.page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}, window.name])")
    assert "secret of hers" not in stored
    webui = await next_one.open()
    prompt = str(await webui.api_prompt())
    assert "secret of hers" not in prompt
    assert await ann.page.evaluate("() => Object.keys(window.app.nodeOutputs).length") == 0
    ann.problems().clear()  # her page noticed that it was signed out


async def test_pages_fit_on_a_phone(visit: Visit) -> None:
    ann = await visit("ann")
    someone = Someone(ann.cluster, ann.person)
    wordy = painting(1)
    wordy["2"]["inputs"]["text"] = "a very long prompt " * 20
    await someone.runs(wordy)
    await someone.comfy.close()
    await ann.page.set_viewport_size(PHONE)
    for path in PAGES:
        await ann.page.goto(ann.cluster.url + path)
        await ann.page.locator("main").wait_for()
        assert await _overhang(ann.page) <= 0, path
    await ann.page.get_by_role("button", name="Sign out").click()
    await ann.page.wait_for_url("**/cluster/login")
    assert await _overhang(ann.page) <= 0
    ann.problems().clear()


async def _overhang(page: Page) -> int:
    """By how much the page is wider than its window; below nothing where a scrollbar is counted."""
    script = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
    return int(await page.evaluate(script))
