"""The classic cache: what is found again, what is not, and what clients are told."""

from pathlib import Path
from typing import Any

from PIL import Image

from backend_pool.engine.cache import keys_of
from tests.engine.client import Client, Frame
from tests.engine.graphs import default_graph, image_graph, node
from tests.engines import Engine


def cached(frames: list[Frame]) -> list[str]:
    return sorted(next(frame for frame in frames if frame["type"] == "execution_cached")["data"]["nodes"])


def ran(frames: list[Frame]) -> list[str]:
    return [f["data"]["node"] for f in frames if f["type"] == "executing" and f["data"]["node"] is not None]


async def test_the_same_prompt_runs_nothing_and_shows_the_old_files(client: Client) -> None:
    first, _ = await client.run(image_graph(0xC1))
    second, frames = await client.run(image_graph(0xC1))
    assert cached(frames) == ["1", "2"] and ran(frames) == []
    assert second["outputs"] == first["outputs"]
    executed = [frame["data"] for frame in frames if frame["type"] == "executed"]
    assert [(data["node"], data["output"]) for data in executed] == [("2", first["outputs"]["2"])]
    assert second["status"]["status_str"] == "success"


async def test_only_what_changed_runs(client: Client) -> None:
    await client.run(default_graph("cache", seed=1))
    _, frames = await client.run(default_graph("cache", seed=2))
    assert cached(frames) == sorted(["62", "63", "66", "67", "71", "68", "69"])
    assert ran(frames) == ["70", "65", "9"]


async def test_only_the_last_prompt_is_kept(client: Client) -> None:
    await client.run(image_graph(0xC2))
    await client.run(image_graph(0xC3))
    _, frames = await client.run(image_graph(0xC2))
    assert cached(frames) == []


async def test_ids_do_not_matter_but_extra_inputs_do(client: Client) -> None:
    await client.run(image_graph(0xC4))
    renamed = {"a": image_graph(0xC4)["1"], "b": node("SaveImage", images=["a", 0], filename_prefix="ComfyUI")}
    _, frames = await client.run(renamed)
    assert cached(frames) == ["a", "b"]
    renamed["b"]["inputs"]["salt"] = "someone"
    _, frames = await client.run(renamed)
    assert cached(frames) == ["a"]


async def test_changed_files_are_read_again(client: Client, engine: Engine) -> None:
    path: Path = engine.base_dir / "input" / "changing.png"
    prompt = {"1": node("LoadImage", image=path.name), "2": node("PreviewImage", images=["1", 0])}
    Image.new("RGB", (8, 8), "red").save(path)
    await client.run(prompt)
    _, frames = await client.run(prompt)
    assert cached(frames) == ["1", "2"]
    Image.new("RGB", (8, 8), "blue").save(path)
    _, frames = await client.run(prompt)
    assert cached(frames) == []


async def test_a_prompts_own_is_changed_is_believed(client: Client, engine: Engine) -> None:
    Image.new("RGB", (8, 8), "red").save(engine.base_dir / "input" / "forged.png")
    prompt: dict[str, Any] = {"1": node("LoadImage", image="forged.png"), "2": node("PreviewImage", images=["1", 0])}
    prompt["1"]["is_changed"] = ["forged"]
    await client.run(prompt)
    Image.new("RGB", (8, 8), "blue").save(engine.base_dir / "input" / "forged.png")
    _, frames = await client.run(prompt)
    assert cached(frames) == ["1", "2"]


async def test_equal_nodes_in_one_prompt_run_once(client: Client) -> None:
    prompt = image_graph(0xC5) | {"3": image_graph(0xC5)["1"], "4": node("PreviewImage", images=["3", 0])}
    entry, frames = await client.run(prompt)
    assert len(ran(frames)) == 3
    assert set(entry["outputs"]) == {"2", "4"}


def test_keys_of_odd_graphs() -> None:
    prompt = {
        "a": node("X", link=["b", 0]),
        "b": node("X", link=["a", 0]),
        "c": node("X", link=["nowhere", 0]),
        "d": node("X", value=float("nan"), nested={"z": [1], "a": None}),
        "e": {"class_type": "X"},
        "f": {"class_type": "X", "inputs": "odd"},
        "g": node("X", link=["e", 0]),
        "h": node("X", link=["f", 0]),
    }
    first, second = keys_of(prompt, lambda _: False), keys_of(prompt, lambda _: False)
    assert all(first[name] != second[name] for name in "abc")
    assert all(first[name] == second[name] for name in "defgh")
    assert first["g"] == first["h"], "equal histories"


def test_keys_of_deep_graphs() -> None:
    depth = 20_000
    prompt = {str(i): node("X", link=[str(i + 1), 0]) for i in range(depth)} | {str(depth): node("X")}
    assert len(set(keys_of(prompt, lambda _: False).values())) == depth + 1
