"""The main job, as people see it: two at once run the frontend's default workflow, each in a workspace of their own."""

import asyncio

import pytest

from tests.browser.conftest import Visit
from tests.browser.visitor import Visitor

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def paint(visitor: Visitor, words: str, seed: int) -> tuple[str, str, bytes]:
    """Change the default workflow, press Run, wait for the picture: job id, address, content."""
    webui = await visitor.open()
    assert {"UNETLoader", "KSampler", "SaveImage"} <= set(await webui.node_types())
    await webui.write_prompt(words)
    await webui.set_widget("KSampler", "seed", seed)
    job_id = await webui.run()
    address = await webui.picture()
    return job_id, address, await webui.picture_bytes(address)


async def test_two_people_at_once_see_their_own_picture_and_nothing_of_the_other(visit: Visit) -> None:
    ann, ben = await visit("ann"), await visit("ben")
    (hers, her_address, her_picture), (his, _, his_picture) = await asyncio.gather(
        paint(ann, "a red fox in the snow", 1001), paint(ben, "a harbour at night", 2002)
    )
    assert her_picture[:4] == his_picture[:4] == b"\x89PNG"
    assert her_picture != his_picture
    assert b"a red fox in the snow" in her_picture  # the prompt is written into the file
    assert b"a harbour at night" in his_picture
    for someone, mine, words, not_words in (
        (ann, hers, "a red fox", "a harbour"), (ben, his, "a harbour", "a red fox"),
    ):  # fmt: skip
        await someone.webui.idle()
        assert [job["id"] for job in (await someone.get("/api/jobs"))["jobs"]] == [mine]
        assert list(await someone.get("/api/history")) == [mine]
        await someone.webui.open_queue()
        await someone.webui.row(mine).wait_for()
        assert [row.job_id for row in await someone.webui.rows()] == [mine]
        await someone.page.get_by_test_id("assets-tab-button").first.click()
        await someone.page.locator("[data-testid*=asset] img, .media-asset img, img[src*='/view']").first.wait_for()
        sources = await someone.page.eval_on_selector_all(
            "img[src*='/view']", "(images) => images.map((image) => image.src)"
        )
        assert len({source.split("filename=")[1].split("&")[0] for source in sources}) == 1
        await someone.page.goto(f"{someone.cluster.url}/cluster/gallery")
        assert await someone.page.locator("main img[src*='/view']").count() == 1
        await someone.page.goto(f"{someone.cluster.url}/cluster/")
        text = await someone.page.locator("main").inner_text()
        assert words in text
        assert not_words not in text
    # the names are equal, each is one's own; another person's job cannot be asked for
    assert (await ben.page.request.get(her_address)).ok
    assert await ben.webui.picture_bytes(her_address) == his_picture
    assert await ben.status(f"/api/jobs/{hers}") == 404
    assert await ann.status(f"/api/jobs/{his}") == 404
