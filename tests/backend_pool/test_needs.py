"""What a prompt asks of a backend: nodes, choices of every kind of list, files under either spelling."""

from typing import Any

import pytest

from backend_pool.offers.node_union import merge
from backend_pool.prompts.needs import Choice, Needs, lacks, needs, offers, refused_needs
from backend_pool.prompts.spelling import respelled
from tests.backend_pool.infos import info
from tests.engine.graphs import node


def test_a_backend_lacks_what_it_does_not_list() -> None:
    """Nodes and models, in words; a user's own files are nobody's lack."""
    union = merge([info("a"), info("b", Only={"input": {}})]).nodes
    prompt = {"1": node("Loader", ckpt_name="b"), "2": node("LoadImage", image="mine.png"), "3": node("Only")}
    wanted = needs(prompt, union)
    assert wanted == Needs(frozenset({"Loader", "LoadImage", "Only"}), frozenset({Choice("Loader", "ckpt_name", "b")}))
    assert lacks(wanted, info("a")) == "node Only"
    assert lacks(wanted, info("a", Only={"input": {}})) == "checkpoint b"
    assert lacks(wanted, info("b", Only={"input": {}})) is None
    assert lacks(needs({"1": node("Loader", ckpt_name=["2", 0])}, union), info()) is None


@pytest.mark.parametrize(
    ("spec", "missing"),
    [
        ([[], {}], "checkpoint b"),
        (["COMBO", {}], "checkpoint b"),
        (["COMBO", {"options": ["a"]}], "checkpoint b"),
        (["COMBO", {"options": ["a", "b"]}], None),
        (["COMBO", {"remote": {"route": "/x"}}], None),
        ([["a"], {"remote": {"route": "/x"}}], None),
        (["STRING", {}], None),
    ],
)
def test_an_empty_list_offers_nothing(spec: Any, missing: str | None) -> None:
    """A backend without any checkpoint got the jobs and failed them; lists filled at run time are its own affair."""
    wanted = Needs(frozenset({"Loader"}), frozenset({Choice("Loader", "ckpt_name", "b")}))
    assert lacks(wanted, {"Loader": {"input": {"required": {"ckpt_name": spec}}}}) == missing


def test_a_list_that_is_not_there_offers_nothing() -> None:
    wanted = Needs(frozenset({"Loader"}), frozenset({Choice("Loader", "ckpt_name", "b")}))
    assert lacks(wanted, {"Loader": {}}) == "checkpoint b"


NOT_LISTED = {"type": "value_not_in_list", "extra_info": {"input_name": "ckpt_name", "received_value": "b"}}
REFUSED_B = Needs(frozenset({"Loader"}), frozenset({Choice("Loader", "ckpt_name", "b")}))


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"error": {"type": "x"}, "node_errors": {"1": {"errors": [NOT_LISTED]}}}, REFUSED_B),
        (
            {"error": {"type": "missing_node_type", "extra_info": {"class_type": "N"}}},
            Needs(frozenset("N"), frozenset()),
        ),
        ({"error": {"type": "missing_node_type"}}, None),
        ({"node_errors": {"1": {"errors": [NOT_LISTED, {"type": "required_input_missing"}]}}}, None),
        ({"node_errors": {"1": {"errors": [{**NOT_LISTED, "type": "value_bigger_than_max"}]}}}, None),
        ({"node_errors": {"1": {"errors": [{"type": "value_not_in_list"}]}}}, None),
        ({"node_errors": {"1": {"errors": ["text"]}}}, None),
        ({"node_errors": {"1": None, "7": {"errors": [NOT_LISTED]}}}, None),
        ({"node_errors": []}, None),
        ({}, None),
        ("text", None),
        (None, None),
    ],
)
def test_what_a_refusal_says_is_missing(body: Any, wanted: Needs | None) -> None:
    """Only when nothing else is wrong with the prompt."""
    assert refused_needs(body, {"1": node("Loader", ckpt_name="b")}) == wanted


UPSCALE = {"input": {"required": {"scale": [[1, 2, 4], {}], "fast": [[True, False], {}]}}}
COMBOS = {"input": {"required": {"lora_name": ["COMBO", {"options": ["sub\\x.safetensors", "y.safetensors"]}]}}}
MANY = {"input": {"optional": {"loras": ["COMBO", {"options": ["p", "q"], "multiselect": True}]}}}
NESTED = {
    "input": {
        "required": {
            "how": [
                "COMFY_DYNAMICCOMBO_V3",
                {"options": [{"key": "m", "inputs": {"required": {"file": [["a", "b"]]}}}]},
            ]
        }
    }
}


@pytest.mark.parametrize(
    ("definition", "inputs", "choices"),
    [
        (UPSCALE, {"scale": 2, "fast": True}, {("scale", 2), ("fast", True)}),
        (COMBOS, {"lora_name": "sub/x.safetensors"}, {("lora_name", "sub/x.safetensors")}),
        (COMBOS, {"lora_name": "sub\\x.safetensors"}, {("lora_name", "sub/x.safetensors")}),
        (COMBOS, {"lora_name": {"__value__": "y.safetensors"}}, {("lora_name", "y.safetensors")}),
        (COMBOS, {"lora_name": ["3", 0]}, set()),
        (MANY, {"loras": {"__value__": ["p", "q"]}}, {("loras", "p"), ("loras", "q")}),
        (NESTED, {"how": "m", "how.file": "a"}, {("how", "m"), ("how.file", "a")}),
    ],
)
def test_every_kind_of_list_counts(definition: Any, inputs: Any, choices: set[tuple[str, Any]]) -> None:
    """Numbers, booleans, several at once, nested ones, either spelling of a path."""
    wanted = needs({"1": node("N", **inputs)}, {"N": definition})
    assert wanted.choices == {Choice("N", key, value) for key, value in choices}
    assert lacks(wanted, {"N": definition}) is None


@pytest.mark.parametrize(
    ("definition", "choice", "offered"),
    [
        (UPSCALE, ("scale", 4), True),
        (UPSCALE, ("scale", 3), False),
        (COMBOS, ("lora_name", "sub/x.safetensors"), True),
        (COMBOS, ("lora_name", "Sub/x.safetensors"), False),
        (NESTED, ("how.file", "b"), True),
        (NESTED, ("how.file", "c"), False),
        (NESTED, ("how", "other"), False),
        (NESTED, ("how.other", "b"), False),
        ({"input": {"required": {"n": ["STRING"]}}}, ("n", "anything"), True),
        ({"input": {"required": {"n": ["COMBO", {"remote": {}}]}}}, ("n", "anything"), True),
        ({"input": None}, ("n", "x"), False),
    ],
)
def test_what_a_definition_offers(definition: Any, choice: tuple[str, Any], offered: bool) -> None:
    assert offers({"N": definition}, Choice("N", *choice)) is offered


@pytest.mark.parametrize(
    ("key", "value", "model"),
    [
        ("ckpt_name", "a.ckpt", True),
        ("ckpt_name", "odd name", True),
        ("how.lora_name", "x", True),
        ("model", "flux.GGUF", True),
        ("sampler_name", "euler", False),
        ("scale", 4, False),
    ],
)
def test_what_is_a_model(key: str, value: Any, model: bool) -> None:
    """A sampler's name is refused in ComfyUI's words alone."""
    assert Choice("N", key, value).is_model is model


def test_each_backend_gets_its_own_spelling() -> None:
    prompt = {"1": node("N", lora_name="sub/x.safetensors"), "2": node("Other"), "3": node("N", lora_name="no/x.pt")}
    spelled = respelled(prompt, {"N": COMBOS})
    assert spelled["1"]["inputs"] == {"lora_name": "sub\\x.safetensors"}
    assert spelled["2"] is prompt["2"] and spelled["3"] is prompt["3"]
    assert prompt["1"]["inputs"] == {"lora_name": "sub/x.safetensors"}
