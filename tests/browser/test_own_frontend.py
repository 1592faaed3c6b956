"""The frontend that ComfyUI 0.8.0 brings (1.35): it asks other routes for its queue and uploads masks another way."""

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import Browser, Locator, Page, expect

from tests import chromium
from tests.browser.conftest import Visit
from tests.browser.graphs import mask_shown
from tests.browser.mask_editor import MaskEditor
from tests.browser.runtimes import comfyui
from tests.browser.visitor import Visitor
from tests.cluster import Cluster
from tests.real_comfyui import WHY_SKIPPED, configured
from tests.system.inside import fault

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.comfyui,
    pytest.mark.slow,
    pytest.mark.skipif(not configured(), reason=WHY_SKIPPED),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """In place of the package's: sessions serve what their ComfyUI has."""
    with comfyui().start(tmp_path_factory.mktemp("own"), "--engines", "2") as running:
        yield running


async def test_a_first_visit_runs_masks_and_drops(visit: Visit, tmp_path: Path) -> None:
    Image.radial_gradient("L").convert("RGB").resize((400, 300)).save(tmp_path / "photo.png")
    ann = await visit("ann")
    webui = await ann.open()
    assert await ann.page.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__") != "1.58.1"
    prompt = await webui.api_prompt()  # its seed changes after each run
    await webui.run()
    picture = await webui.picture_bytes(await webui.picture())
    await ann.shot("own-first-visit")
    await webui.load(mask_shown())
    await webui.upload("LoadImage", tmp_path / "photo.png")
    await webui.look_at("LoadImage")
    editor = MaskEditor(ann.page)
    await editor.open("LoadImage")
    await editor.stroke()
    async with ann.page.expect_response("**/upload/mask") as uploaded:
        await editor.save()
    assert (await uploaded.value).status == 200
    await webui.run()
    mask = Image.open(io.BytesIO(await webui.picture_bytes(await webui.picture("SaveImage")))).convert("L")
    assert min(mask.crop((195, 145, 205, 155)).tobytes()) > 100
    assert max(mask.crop((0, 0, 20, 20)).tobytes()) == 0
    await webui.drop("first.png", picture, "image/png")
    await webui.shows("KSampler")
    assert await webui.api_prompt() == prompt


async def test_its_default_workflow_makes_room_for_one_this_pool_can_run(browser: Browser, tmp_path: Path) -> None:
    """The pool has the models of newer frontends' default workflow, and not the checkpoint of this one's."""
    env = {"COMFY_CLUSTER_ENGINE_ARGS": json.dumps(["--step-ms", "1", "--without", "checkpoints"])}
    with await asyncio.to_thread(comfyui().start, tmp_path, "--engines", "1", env=env) as cluster:
        context = await chromium.window(browser)
        ann = Visitor(cluster, await asyncio.to_thread(cluster.user, "ann"), context, await chromium.tab(context))
        await ann.sign_in()
        webui = await ann.open()
        assert "CheckpointLoaderSimple" not in await webui.node_types()
        await webui.run()
        assert len(await webui.picture_bytes(await webui.picture())) > 100
        assert ann.problems() == []
        await ann.leave()


async def test_the_job_list_runs_waits_cancels_and_gives_a_workflow_back(visit: Visit) -> None:
    ann = await visit("ann")
    webui = await ann.open()
    rows = ann.page.locator("div.relative:has(> div > div > div.truncate)")
    jobs = []
    async with fault(ann.cluster, fault="hang_job", node="KSampler", step=2, heeds_interrupt=True):
        for number in range(3):
            await webui.set_widget("CLIPTextEncode", "text", f"fox number {number}")
            await webui.set_widget("KSampler", "seed", 6000 + number)
            jobs.append(await webui.run())
        assert await webui.progress("KSampler") > 0
        await ann.page.get_by_label("Expand job queue").first.click()
        await expect(rows.filter(has_text="queue")).to_have_count(2)
        await expect(rows.filter(has_text="Total")).to_have_count(1)
        await ann.shot("own-queue")
        await _choose(ann.page, rows.filter(has_text="queue").first, "Cancel job")
        await expect(rows.filter(has_text="queue")).to_have_count(1)
        await webui.reload()
        assert await webui.progress("KSampler") > 0
        await ann.page.get_by_label("Expand job queue").first.click()
        await expect(rows.filter(has_text="queue")).to_have_count(1)
    await expect(rows.filter(has_text=".png")).to_have_count(2)
    kept = {job["id"] for job in (await ann.get("/api/jobs"))["jobs"]}
    assert len(kept) == 2 and jobs[0] in kept
    await _choose(ann.page, rows.filter(has_text=".png").last, "Open as workflow in new tab")
    await webui.opened(jobs[0])
    assert "fox number 0" in [node["inputs"].get("text") for node in (await webui.api_prompt()).values()]
    await ann.shot("own-workflow-of-a-job")


async def _choose(page: Page, row: Locator, entry: str) -> None:
    """Choose an entry of a row's menu."""
    await row.hover()
    await row.get_by_role("button", name="More").click()
    await page.get_by_role("button", name=entry).click()
