"""The graphs people start with, end to end, and what is in the files they leave."""

import io
import json
import re
from importlib.resources import files
from typing import Any

import numpy as np
from PIL import Image

from tests.engine.client import Client
from tests.engine.graphs import classic_graph, default_graph, node


async def picture(client: Client, entry: dict[str, Any], node_id: str = "9", index: int = 0) -> Image.Image:
    shown = entry["outputs"][node_id]["images"][index]
    async with client.http.get(f"{client.url}/view", params=shown) as response:
        assert response.status == 200
        return Image.open(io.BytesIO(await response.read()))


async def test_the_frontends_default_graph_runs(client: Client) -> None:
    entry, _ = await client.run(default_graph(), extra_data={"extra_pnginfo": {"workflow": {"id": "w", "é": "ü"}}})
    image = await picture(client, entry)
    assert image.size == (64, 64)
    texts = image.text  # type: ignore[attr-defined]
    assert json.loads(texts["prompt"])["70"]["inputs"]["seed"] == 42
    assert json.loads(texts["workflow"]) == {"id": "w", "é": "ü"}


async def test_every_model_and_node_of_the_frontends_own_default_graph_is_offered(client: Client) -> None:
    package = files("comfyui_frontend_package") / "static" / "assets"
    sources = (entry.read_text() for entry in package.iterdir() if entry.name.startswith("workflowStore-"))
    source = next(text for text in sources if "last_node_id:71" in text)
    graph = source[source.index("last_node_id:71") : source.index("blankGraph")]
    kinds = set(re.findall(r"id:\d+,type:`(\w+)`", graph))
    models = set(re.findall(r"`([\w.]+\.safetensors)`", graph))
    info = await client.get("/api/object_info")
    assert len(kinds) == 9 and len(models) == 3
    assert kinds <= set(info)
    offered = json.dumps([info[kind]["input"] for kind in ("UNETLoader", "CLIPLoader", "VAELoader")])
    assert all(f'"{model}"' in offered for model in models)


async def test_the_classic_graph_runs_in_batches(client: Client) -> None:
    entry, _ = await client.run(classic_graph(batch=3))
    shown = entry["outputs"]["9"]["images"]
    assert [re.sub(r"\d+", "#", image["filename"]) for image in shown] == ["classic_#_.png"] * 3
    first, second = [np.asarray(await picture(client, entry, index=index)) for index in (0, 1)]
    assert first.shape == (48, 64, 3)
    assert not np.array_equal(first, second)


async def test_prompts_and_seeds_decide_the_picture(client: Client) -> None:
    async def pixels(text: str, seed: int) -> Any:
        entry, _ = await client.run(default_graph(text, seed, size=128))
        return np.asarray(await picture(client, entry), dtype=float)

    base = await pixels("a red dragon", 1)
    other_seed, other_text = await pixels("a red dragon", 2), await pixels("a frozen lake", 1)
    again = await pixels("a red dragon", 1)
    assert np.array_equal(base, again)
    assert abs(base - other_seed).mean() > 10
    assert abs(base - other_text).mean() > 10


async def test_every_picture_has_a_caption_strip(client: Client) -> None:
    entry, _ = await client.run(default_graph("caption", size=512))
    grey = np.asarray((await picture(client, entry)).convert("L"), dtype=int)
    strip = grey[-40:]
    assert (strip > 200).sum() > 300, "light letters"
    assert (strip < 110).mean() > 0.5, "on a dark strip"


async def test_image_to_image_keeps_what_denoise_leaves(client: Client) -> None:
    graph = classic_graph() | {
        "5": node("VAEEncode", pixels=["20", 0], vae=["4", 2]),
        "20": node("EmptyImage", width=64, height=64, batch_size=1, color=0x00FF00),
    }
    means = []
    for denoise in (0.1, 1.0):
        graph["3"]["inputs"]["denoise"] = denoise
        entry, _ = await client.run(graph)
        red, green, _ = np.asarray(await picture(client, entry))[:40].reshape(-1, 3).mean(axis=0)
        means.append(green - red)
    assert means[0] > 150 > means[1]


async def test_advanced_sampling_and_latent_upscale(client: Client) -> None:
    graph = classic_graph()
    inputs = {key: value for key, value in graph["3"]["inputs"].items() if key not in ("seed", "denoise")}
    graph["3"] = node(
        "KSamplerAdvanced",
        **inputs,
        add_noise="enable",
        noise_seed=5,
        start_at_step=0,
        end_at_step=10000,
        return_with_leftover_noise="disable",
    )
    graph["30"] = node("LatentUpscaleBy", samples=["3", 0], upscale_method="bilinear", scale_by=2)
    graph["8"]["inputs"]["samples"] = ["30", 0]
    entry, frames = await client.run(graph)
    assert (await picture(client, entry)).size == (128, 96)
    assert len([frame for frame in frames if frame["type"] == "progress"]) == 3
