"""A real ComfyUI's nodes and models: read, compared, and judged as it judges them itself."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from backend_pool.comfy.answer_body import LIST_BYTES
from backend_pool.files.user_models import files_of
from backend_pool.offers.judgement import judge
from tests.backend_pool.rig import Rig, rig
from tests.backend_pool.test_real_backend import SLOW
from tests.engine.graphs import node
from tests.real_comfyui import RealComfyUI, start_real_comfyui

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealComfyUI]:
    running = start_real_comfyui(tmp_path_factory.mktemp("comfyui"))
    yield running
    running.stop()


def resized(**inputs: Any) -> dict[str, Any]:
    image = node("EmptyImage", width=16, height=16, batch_size=1, color=1)
    resize = node("ResizeImageMaskNode", input=["1", 0], scale_method="area", **inputs)
    return {"1": image, "2": resize, "3": node("PreviewImage", images=["2", 0])}


NESTED: dict[str, dict[str, Any]] = {
    "right": resized(**{"resize_type": "scale by multiplier", "resize_type.multiplier": 2}),
    "too large": resized(**{"resize_type": "scale by multiplier", "resize_type.multiplier": 9}),
    "no number": resized(**{"resize_type": "scale by multiplier", "resize_type.multiplier": "much"}),
    "missing": resized(resize_type="scale by multiplier"),
    "not in the list": resized(
        **{"resize_type": "scale dimensions", "resize_type.width": 8, "resize_type.height": 8, "resize_type.crop": "?"}
    ),
    "of another option": resized(**{"resize_type": "scale by multiplier", "resize_type.width": "x"}),
    "one of several": {
        "1": node("EmptyImage", width=16, height=16, batch_size=1, color=1),
        "2": node("BatchImagesNode", **{"images.image0": ["1", 0], "images.image1": ["9", 0]}),
        "3": node("PreviewImage", images=["2", 0]),
    },
}


def told(body: Any) -> set[tuple[str, str, str, str]]:
    """Node, type, details and input of each error, without what differs by design: texts of Python's exceptions."""
    return {
        (node_id, error["type"], error["details"], error["extra_info"].get("input_name", ""))
        for node_id, entry in body["node_errors"].items()
        for error in entry["errors"]
    }


@pytest.mark.parametrize("case", NESTED)
async def test_nested_inputs_are_judged_as_by_comfyui(tmp_path: Path, server: RealComfyUI, case: str) -> None:
    async with rig(tmp_path, server.url, **SLOW) as r, httpx.AsyncClient(trust_env=False, timeout=30) as http:
        prompt = NESTED[case]
        mine = judge(prompt, r.pool.info, files_of(r.dirs(1)))
        theirs = await http.post(f"{server.url}/prompt", json={"prompt": prompt})
        assert mine.ok is (theirs.status_code == 200), theirs.text
        assert told(mine.body()) == told(theirs.json())


async def test_a_model_file_and_its_picture_appear(tmp_path: Path, server: RealComfyUI) -> None:
    async with rig(tmp_path, server.url, models_interval_s=0.2, **SLOW) as r:
        folder = server.base_dir / "models/loras/new"
        folder.mkdir(parents=True)
        (folder / "ink.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
        Image.new("RGB", (4, 4), "red").save(folder / "ink.png")
        await r.eventually(lambda: bool(r.pool.info.models.having("loras", "new/ink.safetensors")))
        await r.eventually(lambda: "new/ink.safetensors" in _loras(r))
        (entry,) = [
            entry
            for entry in await r.pool.members[1].client.get_json("/experiment/models/loras")
            if entry["name"] == "new/ink.safetensors"
        ]
        path = f"/experiment/models/preview/loras/{entry['pathIndex']}/new/ink.safetensors"
        assert (await r.pool.members[1].client.get_bytes(path, 20, LIST_BYTES))[8:12] == b"WEBP"


def _loras(r: Rig) -> list[str]:
    (listed, *_) = r.pool.info.union["LoraLoader"]["input"]["required"]["lora_name"]
    assert isinstance(listed, list)
    return listed
