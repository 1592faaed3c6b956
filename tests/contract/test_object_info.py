"""Node definitions: what the WebUI draws its widgets from, and what prompts are judged by."""

import pytest

from tests.contract.object_info import facts, stored
from tests.contract.servers import Server
from tests.contract.wire import Comfy


@pytest.mark.parametrize("class_type", sorted(stored()))
async def test_a_node_is_defined_as_in_comfyui(comfy: Comfy, class_type: str) -> None:
    """Key by key, names, types, defaults, limits and the order of options included."""
    entries = (await comfy.get(f"/object_info/{class_type}")).json()
    assert list(entries) == [class_type]
    mine, theirs = facts(class_type, entries[class_type]), stored()[class_type]
    for key, value in theirs.items():
        assert mine.get(key) == value, key
    assert list(mine["input"]) == list(theirs["input"])
    for group, inputs in theirs["input"].items():
        assert list(mine["input"][group]) == list(inputs)
    assert set(mine) == set(theirs)


async def test_the_engine_offers_the_nodes_compared_here(comfy: Comfy, server: Server) -> None:
    """A node added to the engine needs its facts stored: see tests/contract/object_info.py."""
    offered = set((await comfy.get("/object_info")).json())
    missing, beyond = set(stored()) - offered, offered - set(stored())
    assert not missing
    assert not beyond or server.name == "comfyui"


async def test_one_class_is_the_entry_of_the_whole(comfy: Comfy) -> None:
    whole = (await comfy.get("/object_info")).json()
    assert (await comfy.get("/object_info/KSampler")).json() == {"KSampler": whole["KSampler"]}
    unknown = await comfy.get("/object_info/Nope")
    assert (unknown.status, unknown.json()) == (200, {})


async def test_uploaded_pictures_are_offered(comfy: Comfy) -> None:
    await comfy.upload("offered.png", b"not read by this test")
    image = (await comfy.get("/object_info/LoadImage")).json()["LoadImage"]["input"]["required"]["image"]
    assert "offered.png" in image[0]
    assert image[1]["image_upload"] is True


async def test_model_folders(comfy: Comfy) -> None:
    folders = (await comfy.get("/models")).json()
    assert {"checkpoints", "loras", "vae", "text_encoders", "diffusion_models", "embeddings"} <= set(folders)
    assert (await comfy.get("/models/nope")).status == 404
    offered = (await comfy.get("/object_info/LoraLoader")).json()["LoraLoader"]["input"]["required"]["lora_name"][0]
    assert (await comfy.get("/models/loras")).json() == offered


async def test_system_stats(comfy: Comfy) -> None:
    stats = (await comfy.get("/system_stats")).json()
    assert set(stats) == {"system", "devices"}
    assert {"os", "ram_total", "ram_free", "comfyui_version", "python_version", "argv"} <= set(stats["system"])
    assert {"name", "type", "index", "vram_total", "vram_free"} <= set(stats["devices"][0])
