"""What happens to a run on the canvas: reload, cancel, uploads, refusals, and the proxy ending meanwhile."""

import io
from pathlib import Path

import pytest
from PIL import Image, ImageStat
from playwright.async_api import expect

from tests.browser.conftest import Visit
from tests.browser.graphs import scaled_and_blurred
from tests.system.inside import fault

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_reload_during_a_run_brings_progress_back_and_the_picture_in_the_end(visit: Visit) -> None:
    ann = await visit("ann")
    webui = await ann.open()
    await webui.set_widget("KSampler", "seed", 77)
    async with fault(ann.cluster, fault="hang_job", node="KSampler", step=4, heeds_interrupt=True):
        job_id = await webui.run()
        assert await webui.progress("KSampler") > 0
        await webui.reload()
        assert 0 < await webui.progress("KSampler") < 1
        await webui.preview("KSampler")  # again, though nothing new has been drawn
        await webui.open_queue()
        await webui.row(job_id).wait_for()
        await expect(ann.page.get_by_label("Cancel current run")).to_be_enabled()
    assert len(await webui.picture_bytes(await webui.picture())) > 1000
    await webui.idle()


async def test_cancelling_the_running_job_and_a_waiting_one(visit: Visit) -> None:
    ann, ben = await visit("ann"), await visit("ben")
    hers, his = await ann.open(), await ben.open()
    for number, webui in enumerate((hers, his)):
        await webui.set_widget("KSampler", "seed", 800 + number)
    async with fault(ann.cluster, fault="hang_job", node="KSampler", step=2, heeds_interrupt=True):
        running = await hers.run()
        assert await hers.progress("KSampler") > 0
        await hers.set_widget("KSampler", "seed", 900)
        waiting, last = await hers.run(), await hers.run()
        kept = await his.run()
        assert await his.progress("KSampler") > 0
        await hers.open_queue()
        assert (await hers.cancel_row(waiting)).status == 200
        assert (await hers.cancel_running()).status == 200
    await hers.picture()
    await hers.idle()
    await his.picture()
    await his.idle()
    jobs = {job["id"]: job["status"] for job in (await ann.get("/api/jobs"))["jobs"]}
    assert jobs == {running: "cancelled", last: "completed"}
    assert [job["status"] for job in (await ben.get("/api/jobs"))["jobs"] if job["id"] == kept] == ["completed"]
    assert not [toast for toast in await hers.toasts() if "ailed" in toast]


async def test_a_photograph_is_uploaded_blurred_and_saved_and_one_nobody_has_is_refused(
    visit: Visit, tmp_path: Path
) -> None:
    photograph = Image.effect_noise((640, 480), 90).convert("RGB")
    photograph.save(tmp_path / "my photo.png")
    ann = await visit("ann")
    webui = await ann.open()
    await webui.load(scaled_and_blurred())
    async with ann.page.expect_file_chooser() as chooser:
        await webui.press_widget("LoadImage", "upload")
    async with ann.page.expect_response("**/upload/image") as uploaded:
        await (await chooser.value).set_files(tmp_path / "my photo.png")
    assert (await (await uploaded.value).json())["name"] == "my photo.png"
    assert (await webui.api_prompt())["1"]["inputs"]["image"] == "my photo.png"
    await webui.run()
    saved = await webui.picture_bytes(await webui.picture("SaveImage"))
    shown = await webui.picture_bytes(await webui.picture("PreviewImage"))
    assert Image.open(io.BytesIO(saved)).size == Image.open(io.BytesIO(shown)).size == (320, 240)
    blurred = Image.open(io.BytesIO(saved)).convert("L")
    assert _contrast(blurred) < _contrast(photograph.convert("L"))
    await webui.load(scaled_and_blurred(image="nobody has this.png"))
    assert ann.problems() == []
    assert (await webui.press_run()).status == 400
    assert await webui.error()
    await webui.dismiss_error()
    webui.problems.clear()  # the frontend writes each refusal into the console


def _contrast(picture: Image.Image) -> float:
    return ImageStat.Stat(picture).stddev[0]
