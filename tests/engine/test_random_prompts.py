"""Random prompts over all nodes: each is answered with 200 or 400, each accepted one ends, and nothing breaks."""

import random
from typing import Any

import pytest

from tests.engine.client import Client
from tests.engine.graphs import Graph, node

ODD: list[Any] = [None, True, -1, 0, 3.7, 1e9, "", "x", "7", float("nan"), [], {}, ["1"], ["99", 0], ["1", 9], [[1], 0]]
SMALL = {"width": 24, "height": 16, "steps": 2, "batch_size": 2, "scale_by": 1.5, "megapixels": 0.01, "amount": 2}


def value(choose: random.Random, name: str, spec: list[Any], graph: Graph, info: Any) -> Any:
    kind, options = spec[0], spec[1] if len(spec) > 1 else {}
    if choose.random() < 0.03:
        return choose.choice(ODD)
    if isinstance(kind, list):
        return choose.choice(kind) if kind else "none"
    if kind == "COMBO":
        return choose.choice(options.get("options") or ["none"])
    if kind in ("INT", "FLOAT"):
        return SMALL.get(name, choose.choice([options.get("default", 1), options.get("min", 0)]))
    if kind in ("STRING", "BOOLEAN"):
        return choose.choice(["a", "b/c", "%width%"]) if kind == "STRING" else choose.random() < 0.5
    sources = [
        [other, slot]
        for other, entry in graph.items()
        for slot, made in enumerate(info[entry["class_type"]]["output"])
        if kind in (made, "*")
    ]
    return choose.choice(sources) if sources else ["1", 0]


def random_prompt(choose: random.Random, info: Any) -> Graph:
    graph: Graph = {
        "1": node("EmptyImage", width=24, height=16, batch_size=1, color=5),
        "2": node("SolidMask", value=0.5, width=24, height=16),
        "3": node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly-fp16.safetensors"),
        "4": node("EmptyLatentImage", width=24, height=16, batch_size=1),
        "5": node("CLIPTextEncode", text="x", clip=["3", 1]),
    }
    for number in range(6, 6 + choose.randint(1, 8)):
        kind = choose.choice(sorted(info))
        inputs = {
            name: value(choose, name, spec, graph, info)
            for group in ("required", "optional")
            for name, spec in info[kind]["input"].get(group, {}).items()
            if choose.random() > 0.02
        }
        graph[str(number)] = node(kind, **inputs)
    images = [key for key, entry in graph.items() if "IMAGE" in info[entry["class_type"]]["output"]]
    graph["end"] = node("PreviewImage", images=[images[-1], 0])
    return graph


@pytest.mark.parametrize("seed", range(4))
async def test_random_prompts(client: Client, seed: int) -> None:
    choose = random.Random(seed)
    info = await client.get("/object_info")
    ended: list[str] = []
    for _ in range(25):
        status, body = await client.post("/prompt", {"prompt": random_prompt(choose, info), "client_id": client.sid})
        if status == 400:
            assert set(body) == {"error", "node_errors"} and body["error"]["type"]
            continue
        assert status == 200, body
        await client.until("executing", node=None, prompt_id=body["prompt_id"])
        entry = (await client.get(f"/history/{body['prompt_id']}"))[body["prompt_id"]]
        last = entry["status"]["messages"][-1][0]
        assert last == ("execution_success" if entry["status"]["completed"] else "execution_error")
        ended.append(last)
    assert ended.count("execution_success") >= 3
