"""Files that find their way onto the canvas: a painted mask, a picture with its workflow, a template."""

import io
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.conftest import Visit
from tests.browser.graphs import mask_shown
from tests.browser.mask_editor import MaskEditor

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def test_a_mask_painted_in_the_editor_reaches_the_run(visit: Visit, tmp_path: Path) -> None:
    Image.radial_gradient("L").convert("RGB").resize((400, 300)).save(tmp_path / "photo.png")
    ann = await visit("ann")
    webui = await ann.open()
    await webui.load(mask_shown())
    await webui.upload("LoadImage", tmp_path / "photo.png")
    await webui.look_at("LoadImage")
    editor = MaskEditor(ann.page)
    await editor.open("LoadImage")
    await editor.stroke()
    await ann.shot("mask-editor")
    await editor.save()
    chosen = (await webui.api_prompt())["1"]["inputs"]["image"]
    assert "clipspace" in chosen and chosen.endswith(" [input]")
    shown = Image.open(io.BytesIO(await webui.picture_bytes(await webui.picture("LoadImage"))))
    assert shown.size == (400, 300)
    assert max(_middle(shown.getchannel("A"))) < 155
    assert min(_corner(shown.getchannel("A"))) == 255
    await webui.run()
    mask = Image.open(io.BytesIO(await webui.picture_bytes(await webui.picture("SaveImage")))).convert("L")
    await ann.shot("mask-run")
    assert min(_middle(mask)) > 100
    assert max(_corner(mask)) == 0


async def test_a_picture_dropped_on_the_canvas_brings_its_workflow_back_and_a_template_opens(visit: Visit) -> None:
    ann = await visit("ann")
    webui = await ann.open()
    await webui.write_prompt("a fox to be found again")
    await webui.set_widget("KSampler", "seed", 4711)
    first = await webui.run()
    picture = await webui.picture_bytes(await webui.picture())
    prompt = await webui.api_prompt()
    await webui.load(mask_shown())
    await webui.drop("fox.png", picture, "image/png")
    await webui.shows("KSampler")
    assert await webui.api_prompt() == prompt
    again = await webui.run()
    assert again != first
    await webui.idle()
    last = await webui.picture()
    assert await webui.picture_bytes(last) == picture
    await ann.shot("dropped")
    await webui.open_templates()
    await ann.shot("templates")
    await webui.open_template("House style")
    await webui.shows("EmptyImage")
    await webui.run()
    assert len(await webui.picture_bytes(await webui.picture(before=last))) > 100


def _middle(picture: Image.Image) -> bytes:
    x, y = picture.width // 2, picture.height // 2
    return picture.crop((x - 5, y - 5, x + 5, y + 5)).tobytes()


def _corner(picture: Image.Image) -> bytes:
    return picture.crop((0, 0, 20, 20)).tobytes()
