"""object_info, models, system_stats, features and logs."""

import json
import struct
from typing import Any

import pytest

from backend_pool.engine.models import Models
from tests.engine.client import Client, connect
from tests.engine.graphs import default_graph
from tests.engines import Engine


async def test_object_info_has_comfyuis_shape(client: Client) -> None:
    info = await client.get("/object_info")
    for name, entry in info.items():
        assert entry["name"] == name and isinstance(entry["output_node"], bool)
        assert {"required"} <= set(entry["input"]) <= {"required", "optional", "hidden"}
        assert entry["input_order"] == {group: list(inputs) for group, inputs in entry["input"].items()}
        assert len(entry["output"]) == len(entry["output_is_list"]) == len(entry["output_name"])
        for group in ("required", "optional"):
            for spec in entry["input"].get(group, {}).values():
                assert isinstance(spec[0], str | list) and 1 <= len(spec) <= 2
    assert info["LoadImage"]["input"]["required"]["image"][1] == {"image_upload": True}
    assert info["SaveImage"]["input"]["hidden"] == {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
    sampler = info["KSampler"]["input"]["required"]
    assert list(sampler)[:4] == ["model", "seed", "steps", "cfg"] and list(sampler)[-1] == "denoise"
    assert sampler["seed"][1]["max"] == 2**64 - 1
    assert len(sampler["sampler_name"][0]) == 44 and len(sampler["scheduler"][0]) == 9


async def test_one_class(client: Client) -> None:
    assert await client.get("/object_info/Nope") == {}
    assert list(await client.get("/object_info/VAEDecode")) == ["VAEDecode"]


async def test_models_on_disk_are_offered(client: Client, engine: Engine) -> None:
    folder = engine.base_dir / "models" / "loras" / "mine"
    folder.mkdir(parents=True)
    header = json.dumps({"__metadata__": {"by": "me"}}).encode()
    (folder / "x.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "x.txt").touch()
    assert "mine/x.safetensors" in await client.get("/models/loras")
    assert "mine/x.txt" not in await client.get("/models/loras")
    info = await client.get("/object_info/LoraLoader")
    assert "mine/x.safetensors" in info["LoraLoader"]["input"]["required"]["lora_name"][0]
    assert await client.get("/view_metadata/loras?filename=mine/x.safetensors") == {"by": "me"}
    sizes = {row["name"]: row["size"] for row in await client.get("/experiment/models/loras")}
    assert sizes["mine/x.safetensors"] == 8 + len(header)


@pytest.mark.parametrize(
    "path",
    [
        "/models/nope",
        "/experiment/models/nope",
        "/view_metadata/loras?filename=nope.safetensors",
        "/view_metadata/loras?filename=../../x.safetensors",
        "/view_metadata/nope?filename=x.safetensors",
        "/view_metadata/loras",
    ],
)
async def test_missing_models(client: Client, path: str) -> None:
    async with client.http.get(client.url + path) as response:
        assert response.status == 404


async def test_what_it_is(client: Client) -> None:
    stats = await client.get("/system_stats")
    (device,) = stats["devices"]
    assert "embedded engine" in device["name"] and "embedded engine" in stats["system"]["pytorch_version"]
    assert device["vram_total"] >= device["vram_free"] > 0 and stats["system"]["ram_total"] > 0
    assert (await client.get("/features"))["supports_preview_metadata"] is True
    assert "easynegative_example" in await client.get("/embeddings")
    assert {"checkpoints", "loras", "vae"} <= set(await client.get("/models"))
    assert {entry["name"] for entry in await client.get("/experiment/models")} >= {"checkpoints"}


async def test_logs_and_files(client: Client) -> None:
    await client.run(default_graph("logs"))
    assert "job ended" in await client.get("/internal/logs")
    assert set((await client.get("/internal/logs/raw"))["entries"][0]) == {"t", "m"}
    assert "ComfyUI_00001_.png" in await client.get("/internal/files/output")
    assert "loras" in await client.get("/internal/folder_paths")
    async with client.http.get(f"{client.url}/internal/files/nope") as response:
        assert response.status == 400


async def test_models_load_once_and_are_evicted(start: Any) -> None:
    running = start("--vram-mb", "12000")
    async with connect(running.url) as client:
        await client.run(default_graph("a"))
        about = await client.get("/engine")
        # The sampler's model pushed the text encoder out, and the decoder's that one: 12000 MiB hold no two of them.
        assert about["loaded_models"] == {"vae/ae.safetensors": 320}
        assert (about["counters"]["model_loads"], about["counters"]["model_evictions"]) == (3, 2)
        await client.run(default_graph("a", seed=9))
        about = await client.get("/engine")
        assert about["counters"]["jobs_run"] == 2
        assert {name: timing["runs"] for name, timing in about["nodes"].items()}["KSampler"] == 2
        assert about["nodes"]["UNETLoader"]["runs"] == 1, "the second job found it cached"


def test_a_model_costs_time_by_size(tmp_path: Any) -> None:
    models = Models(tmp_path, ("big.safetensors",), 4096, 100)
    waits: list[float] = []
    models.use("checkpoints", "big.safetensors", waits.append)
    models.use("checkpoints", "big.safetensors", waits.append)
    models.use("vae", "ae.safetensors", waits.append)
    assert waits == [0.2, 320 / 1024 * 0.1]
    models.use("text_encoders", "qwen_3_4b.safetensors", waits.append)
    assert list(models.loaded()) == ["text_encoders/qwen_3_4b.safetensors"] and models.evictions == 2
    assert models.names("checkpoints") == ["big.safetensors"]
    models.unload_all()
    assert models.loaded() == {}
