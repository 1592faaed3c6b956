"""The frontend's own panels over our queue, history, files and models."""

import re
from pathlib import Path

import pytest
from PIL import Image
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.graphs import scaled_and_blurred
from tests.browser.panels import Assets, models_listed
from tests.system.inside import fault

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_the_job_list_runs_waits_cancels_one_and_gives_a_workflow_back(visit: Visit) -> None:
    ann = await visit("ann")
    webui = await ann.open()
    jobs = []
    async with fault(ann.cluster, fault="hang_job", node="KSampler", step=4, heeds_interrupt=True):
        for number in range(3):
            await webui.write_prompt(f"fox number {number}")
            await webui.set_widget("KSampler", "seed", 6000 + number)
            jobs.append(await webui.run())
        running, dropped, last = jobs
        await webui.open_queue()
        await webui.row_says(running, "Total")
        for waiting in (dropped, last):
            await webui.row_says(waiting, "In queue")
        for waiting, place in ((dropped, 1), (last, 2)):  # among everybody's jobs, which the frontend knows nothing of
            await expect(webui.row(waiting)).to_have_attribute("data-cluster-place", re.compile(rf"^#{place} in line"))
        assert (await webui.cancel_row(dropped)).status == 200
        await expect(webui.row(dropped)).to_have_count(0)
        await webui.row_says(running, "Total")
        await webui.row_says(last, "In queue")
        await ann.shot("queue")
    await webui.row_says(last, ".png")
    await webui.row_says(running, ".png")
    await webui.idle()
    await webui.job_menu(running, "Open as workflow in new tab")
    await webui.opened(running)
    texts = [node["inputs"].get("text") for node in (await webui.api_prompt()).values()]
    assert "fox number 0" in texts
    await ann.shot("workflow-of-a-job")
    await webui.job_menu(last, "Add to current workflow")
    await webui.shows("LoadImage")
    (loader,) = [node for node in (await webui.api_prompt()).values() if node["class_type"] == "LoadImage"]
    assert loader["inputs"]["image"].endswith(".png [output]")
    assert {row.job_id for row in await webui.rows()} == {running, last}


async def test_assets_models_and_gallery(visit: Visit, tmp_path: Path) -> None:
    Image.radial_gradient("L").convert("RGB").save(tmp_path / "sun.png")
    ann = await visit("ann")
    webui = await ann.open()
    await webui.load(scaled_and_blurred())
    await webui.upload("LoadImage", tmp_path / "sun.png")
    await webui.run()
    await webui.picture("SaveImage")
    assets = Assets(ann.page)
    await assets.open("Imported")
    await assets.shows("sun.png")
    await assets.open("Generated")
    await assets.shows("browser_00001_.png")
    await ann.shot("assets")
    listed = await ann.get("/api/experiment/models/checkpoints")
    assert await models_listed(ann.page, "checkpoints") == [Path(model["name"]).stem for model in listed]
    await ann.shot("models")
    gallery = await ann.context.new_page()
    await gallery.goto(f"{ann.cluster.url}/cluster/gallery")
    await gallery.locator("main img[src*='browser_00001_']").first.click()
    await expect(gallery.locator("#lightbox-image")).to_be_visible()
    await gallery.close()  # a page behind another one is slow
    await assets.open("Generated")
    assert (await assets.delete("browser_00001_.png")).status == 200
    assert (await ann.get("/api/jobs"))["jobs"] == []
    assert await ann.status("/api/view?filename=browser_00001_.png") == 200  # the file stays, as the dialog said
