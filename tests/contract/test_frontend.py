"""The official frontend over a real ComfyUI: proves that tests/webui.py reads and presses the right things."""

import json
from collections.abc import AsyncIterator, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from tests import chromium
from tests.contract.servers import PROBE_PACK
from tests.real_comfyui import RealComfyUI, start_real_comfyui
from tests.webui import WebUi

pytestmark = [pytest.mark.comfyui, pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealComfyUI]:
    base = tmp_path_factory.mktemp("frontend")
    settings = base / "user" / "default" / "comfy.settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        json.dumps({"Comfy.TutorialCompleted": True, "Comfy.Notification.ShowVersionUpdates": False}),
    )
    static = Path(str(files("comfyui_frontend_package") / "static"))
    server = start_real_comfyui(base, "--front-end-root", str(static), custom_node=PROBE_PACK)
    yield server
    server.stop()


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    async with chromium.launched() as running:
        yield running


@pytest.fixture
async def webui(browser: Browser, comfyui: RealComfyUI) -> WebUi:
    """The WebUI on its default workflow, in a window of its own."""
    page = await chromium.tab(await chromium.window(browser))
    webui = WebUi(page)
    await webui.open(comfyui.url)
    return webui


def workflow(*middle: str) -> dict[str, Any]:
    """A row of nodes: EmptyImage, the given ones with their one picture in and out, SaveImage."""
    types = ["EmptyImage", *middle, "SaveImage"]
    last = len(types)
    nodes = [
        {
            "id": index,
            "type": name,
            "pos": [index * 340, 100],
            "size": [300, 200],
            "flags": {},
            "order": index,
            "mode": 0,
            "inputs": [{"name": "images" if index == last else "image", "type": "IMAGE", "link": index - 1}][
                : index - 1
            ],
            "outputs": [{"name": "IMAGE", "type": "IMAGE", "links": [index]}][: last - index],
            "properties": {"Node name for S&R": name},
        }
        for index, name in enumerate(types, start=1)
    ]
    links = [[index, index, 0, index + 1, 0, "IMAGE"] for index in range(1, last)]
    return {"last_node_id": last, "last_link_id": last, "nodes": nodes, "links": links, "version": 0.4}


async def test_the_default_workflow_opens(webui: WebUi) -> None:
    assert {"UNETLoader", "CLIPTextEncode", "KSampler", "SaveImage"} <= set(await webui.node_types())
    await webui.write_prompt("a red fox")
    texts = [node["inputs"].get("text") for node in (await webui.api_prompt()).values()]
    assert "a red fox" in texts


async def test_run_shows_the_picture(webui: WebUi) -> None:
    await webui.load(workflow("ImageInvert"))
    await webui.set_widget("EmptyImage", "width", 64)
    job_id = await webui.run()
    address = await webui.picture()
    assert (await webui.picture_bytes(address))[:4] == b"\x89PNG"
    await webui.idle()
    await webui.open_queue()
    # 0.8.0 refuses the frontend's question for cancelled jobs, so finished ones are not listed here
    assert job_id not in [row.job_id for row in await webui.rows()]


async def test_a_refused_prompt_is_shown(webui: WebUi) -> None:
    assert (await webui.press_run()).status == 400  # the default workflow's models are not there
    assert "found" in await webui.error()
    await webui.dismiss_error()


async def test_waiting_running_and_cancelled_jobs(webui: WebUi) -> None:
    await webui.load(workflow(*["ImageBlur"] * 40))
    for name in ("width", "height"):
        await webui.set_widget("EmptyImage", name, 1024)
    running = await webui.run()
    waiting = await webui.run()
    await webui.open_queue()
    await webui.row_says(waiting, "queue")
    assert {row.job_id for row in await webui.rows()} == {running, waiting}
    assert (await webui.cancel_row(waiting)).status == 405  # newer servers cancel, 0.8.0 has no such route
    assert any("Failed to cancel" in toast for toast in await webui.toasts())
    await webui.clear_queue()
    assert (await webui.cancel_running()).status == 200
    await webui.idle()


async def test_previews_and_a_reload(webui: WebUi) -> None:
    await webui.load(workflow("ContractPreview"))
    await webui.run()
    await webui.preview("ContractPreview")
    await webui.picture()
    await webui.reload()
    assert await webui.node_types() == ["EmptyImage", "ContractPreview", "SaveImage"]
