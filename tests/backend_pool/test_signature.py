"""Signatures: what makes two workflows the same work, and what does not; whatever a prompt holds."""

import copy
import random
from dataclasses import replace
from typing import Any

import pytest

from backend_pool.dispatch.matching import _read_all
from backend_pool.forecasts.signature import MODELS_READ, Model, Traits, models_of, traits
from backend_pool.model import JobDocument
from backend_pool.offers.pool_info import PoolInfo
from tests.backend_pool.infos import info, provider

PROMPT: dict[str, Any] = {
    "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd.safetensors"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a cat"}},
    "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512, "batch_size": 1}},
    "5": {
        "class_type": "KSampler",
        "inputs": {"model": ["1", 0], "positive": ["2", 0], "latent_image": ["4", 0], "seed": 1, "steps": 20, "cfg": 7},
    },
    "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "y"}},
}


def changed(node: str, **inputs: Any) -> dict[str, Any]:
    prompt = copy.deepcopy(PROMPT)
    prompt[node]["inputs"].update(inputs)
    return prompt


BASE = traits(PROMPT, ["6"])


@pytest.mark.parametrize(
    "prompt",
    [
        changed("5", seed=2),
        changed("5", noise_seed=99),
        changed("2", text="my secret"),
        changed("6", filename_prefix="z"),
        changed("5", steps=20.0),
        changed("9", filename_prefix="not asked for"),
        dict(reversed(PROMPT.items())),
    ],
)
def test_seeds_texts_and_what_is_not_reached_make_no_difference(prompt: dict[str, Any]) -> None:
    assert replace(traits(prompt, ["6"]), whole=BASE.whole) == BASE


@pytest.mark.parametrize(
    ("prompt", "same"),
    [
        (changed("5", seed=2), True),
        (changed("9", filename_prefix="not asked for"), True),
        (changed("2", text="my secret"), False),
        (changed("5", seed="a text"), False),
        (changed("5", steps=21), False),
        ({("11" if key == "1" else key): node for key, node in PROMPT.items()}, False),
    ],
)
def test_a_run_tells_of_what_is_the_same_but_for_seeds(prompt: dict[str, Any], same: bool) -> None:
    assert BASE.whole and (traits(prompt, ["6"]).whole == BASE.whole) == same


@pytest.mark.parametrize(
    ("prompt", "same_group", "same_graph"),
    [
        (changed("5", steps=22), True, True),
        (changed("5", steps=80), False, True),
        (changed("4", width=2048), False, True),
        (changed("5", cfg=2), True, True),
        (changed("1", ckpt_name="flux.safetensors"), False, False),
        (changed("6", lora_name="a.safetensors"), True, False),
    ],
)
def test_numbers_and_models_make_another_work(prompt: dict[str, Any], same_group: bool, same_graph: bool) -> None:
    other = traits(prompt, ["6"])
    assert other.signature != BASE.signature
    assert (other.group == BASE.group) == same_group
    assert (other.graph == BASE.graph) == same_graph


def test_models_and_the_heaviest_node_are_found() -> None:
    assert BASE.models == frozenset({"checkpoints:sd.safetensors"})
    assert BASE.heaviest == frozenset({"5"})
    assert traits(PROMPT, ["4"]).heaviest == frozenset({"4"})


@pytest.mark.parametrize(
    ("inputs", "found"),
    [
        ({"ckpt_name": "a\\b.ckpt"}, [Model("checkpoints", "a/b.ckpt")]),
        ({"x.lora_name": "c"}, [Model("loras", "c")]),
        ({"upscaler": "4x.PTH"}, [Model("upscaler", "4x.PTH")]),
        ({"ckpt_name": ["1", 0], "text": "a model"}, []),
        ({"text": "x" * 5000 + ".bin"}, []),
        (None, []),
        ([1, 2], []),
    ],
)
def test_models_of_a_node(inputs: Any, found: list[Model]) -> None:
    assert models_of({"class_type": "X", "inputs": inputs}) == found


def flood(nodes: int, each: int) -> dict[str, Any]:
    """A prompt whose nodes name files that nobody has."""
    made = {
        f"n{number}": {"class_type": "Any", "inputs": {f"a{key}": f"{number}.{key}.pt" for key in range(each)}}
        for number in range(nodes)
    }
    return made | {"1": PROMPT["1"], "end": {"class_type": "X", "inputs": {name: [name, 0] for name in (*made, "1")}}}


def test_models_are_few_and_those_of_loaders_come_first() -> None:
    """However many a prompt names; it is another workflow all the same."""
    found = traits(flood(40, 30), ["end"])
    assert len(found.models) == MODELS_READ and "checkpoints:sd.safetensors" in found.models
    assert found.graph != traits(flood(40, 29), ["end"]).graph


def known(**inputs: Any) -> Traits:
    """Of a loader with a list of one model, and a node that takes texts too; the pool has another model."""
    pool = PoolInfo([provider(1, info("sd.safetensors"), models={"upscale_models": ["4x.pt"]})])
    prompt = {
        "1": {"class_type": "Loader", "inputs": {"ckpt_name": "sd.safetensors", "from": ["2", 0]}},
        "2": {"class_type": "Odd", "inputs": {"file": "on-disk.bin", **inputs}},
    }
    document = JobDocument(seq=7, prompt=prompt, extra_data={}, targets=["1"])
    return next(iter(_read_all([document], pool, (0, True)).values())).traits


def test_only_models_that_a_node_can_load_count() -> None:
    """Neither texts nor inputs that its class does not have, whatever they name: nobody loads them."""
    plain = known(x="a text")
    assert plain.models == {"checkpoints:sd.safetensors", "file:on-disk.bin"}
    for inputs in ({"x": "a.pt"}, {"x": "4x.pt"}, {"ckpt_name": "sd.safetensors"}, {"unet_name": "made-up"}):
        found = known(**inputs)
        assert (found.models, found.makeup, found.signature) == (plain.models, plain.makeup, plain.signature)


def test_texts_never_show() -> None:
    assert "cat" not in repr(BASE) and "secret" not in repr(traits(changed("2", text="my secret"), ["6"]))


def test_any_json_has_traits() -> None:
    rng = random.Random(4)

    def value(depth: int) -> Any:
        leaves: list[Any] = [None, True, 10**400, -1e308, float("nan"), "\ud800", "", 3, ["1", 0], "m.safetensors"]
        if depth == 0 or rng.random() < 0.5:
            return rng.choice(leaves)
        keys = ["steps", "width", "seed", "ckpt_name", "class_type", "inputs", "\udfff"]
        return {rng.choice(keys): value(depth - 1) for _ in range(4)} if rng.random() < 0.7 else [value(depth - 1)]

    for _ in range(2000):
        nodes = {str(i): {"class_type": value(1), "inputs": value(2)} for i in range(rng.randrange(5))}
        found = traits(nodes, ["0", "1", "7"])
        assert found == traits(nodes, ["1", "7", "0"])


def test_a_huge_prompt_is_read_in_part() -> None:
    chain = {str(i): {"class_type": "N", "inputs": {"a": [str(i + 1), 0], "v": i}} for i in range(5000)}
    assert traits(chain, ["0"]).signature != traits(chain | {"x": {"class_type": "N"}}, ["0"]).signature
