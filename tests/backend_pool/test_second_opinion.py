"""Nodes of packs judge their own inputs at a backend, which is asked without queueing anything there."""

from pathlib import Path
from typing import Any

import pytest

from backend_pool.backends.consultant import Consultant
from backend_pool.prompts.second_opinion import answer, question, with_opinions
from backend_pool.prompts.validation import validate
from tests.backend_pool.rig import rig
from tests.backend_pool.strange_backend import strange_backend
from tests.engine.graphs import node


def declared(
    module: str, inputs: dict[str, Any], *output: str, shows: bool = False, optional: dict[str, Any] | None = None
) -> dict[str, Any]:
    group = {"required": inputs, "optional": optional or {}}
    return {"python_module": module, "input": group, "output": list(output), "output_node": shows}


NUMBER = ["INT", {"min": 0, "max": 5}]
INFO = {
    "EmptyImage": declared("nodes", {"width": NUMBER}, "IMAGE"),
    "ImageScaleBy": declared("nodes", {"image": ["IMAGE"], "scale_by": ["FLOAT", {}]}, "IMAGE"),
    "SaveImage": declared("nodes", {"images": ["IMAGE"], "filename_prefix": ["STRING", {}]}, shows=True),
    "PreviewImage": declared("nodes", {"images": ["IMAGE"]}, shows=True),
    "Picky": declared("custom_nodes.picky", {"image": ["IMAGE"], "most": NUMBER, "which": [["a", "b"]]}, "IMAGE"),
    "PickySave": declared("custom_nodes.picky", {"image": ["IMAGE"], "most": NUMBER}, "IMAGE", shows=True),
    "PickySound": declared("custom_nodes.picky", {"sound": ["SOUND"]}, shows=True),
    "PickyWords": declared("custom_nodes.picky", {"words": ["STRING", {}]}, "SOUND", shows=True),
    "PickyFile": declared("custom_nodes.picky", {"file": [["x"], {"image_upload": True}]}, "IMAGE"),
}


def prompt(end: dict[str, Any], **picky: Any) -> dict[str, Any]:
    inputs = {"image": ["1", 0], "most": 9, "which": "a", **picky}
    return {"1": node("EmptyImage", width=4), "2": node("Picky", **inputs), "9": end}


SAVED = node("SaveImage", images=["2", 0], filename_prefix="x")
FAILED = {"type": "prompt_outputs_failed_validation", "message": "", "details": "", "extra_info": {}}


def reason(kind: str, name: str) -> dict[str, Any]:
    return {"type": kind, "message": kind, "details": name, "extra_info": {"input_name": name}}


def refusal(*reasons: dict[str, Any]) -> dict[str, Any]:
    entry = {"errors": list(reasons), "dependent_outputs": ["9"], "class_type": "Picky"}
    return {"error": FAILED, "node_errors": {"2": entry, "9 unasked": entry}}


def test_only_nodes_of_packs_without_files_are_asked() -> None:
    asked = prompt(SAVED) | {"3": node("PickyFile", file="x"), "4": node("PickyWords", words="mine.png")}
    assert with_opinions(asked, INFO, lambda text: text == "mine.png") == {"2"}
    assert with_opinions(asked, INFO, lambda _text: False) == {"2", "4"}
    assert with_opinions({"1": 5, "2": {}, "3": {"class_type": "Picky"}}, INFO, lambda _text: False) == set()
    assert with_opinions([], INFO, lambda _text: False) == set()


@pytest.mark.parametrize(
    "end",
    [
        SAVED,
        node("PreviewImage", images=["2", 0]),
        node("PickySave", image=["2", 0], most=1),
        node("SaveImage", images=["3", 0], filename_prefix="x"),
    ],
)
def test_what_is_asked_can_never_be_accepted(end: dict[str, Any]) -> None:
    """By any output, an intermediate one included; what lies above is unchanged, so it is judged as it is."""
    whole = prompt(end, most=1) | {"3": node("PickySave", image=["2", 0], most=1)}
    assert validate(whole, INFO).ok
    sent = question(whole, ["9"], {"2"}, INFO)
    assert sent is not None
    verdict = validate(sent, INFO)
    assert not verdict.ok and verdict.node_errors
    assert (sent["1"], sent["2"]) == (whole["1"], whole["2"])
    assert whole["9"] == end


def test_what_cannot_be_asked_is_not() -> None:
    sounds = {"1": node("PickyWords", words="a"), "9": node("PickySound", sound=["1", 0])}
    assert question(sounds, ["9"], {"1", "9"}, INFO) is None  # nothing of ComfyUI's passes SOUND on
    assert question(prompt(SAVED), ["9"], {"7"}, INFO) is None  # no node to ask
    assert question({"9": {"class_type": "SaveImage"}}, ["9"], {"9"}, INFO) is None


@pytest.mark.parametrize("body", [None, "no", {}, {"error": "x"}, {"error": {"type": "prompt_no_outputs"}},
                                  {"error": FAILED, "node_errors": []},
                                  {"error": FAILED, "node_errors": {"2": {"errors": [{"type": "x"}]}}}])  # fmt: skip
def test_other_answers_say_nothing(body: Any) -> None:
    assert answer(body, prompt(SAVED), {"2"}) is None


def test_what_the_node_says_counts() -> None:
    whole = prompt(SAVED, which="c")
    ours = validate(whole, INFO).node_errors["2"]["errors"]
    assert [error["type"] for error in ours] == ["value_bigger_than_max", "value_not_in_list"]
    own = reason("custom_validation_failed", "most")
    told = answer(refusal(own, reason("value_not_in_list", "which")), whole, {"2", "9"})
    assert told == {"2": [own, reason("value_not_in_list", "which")], "9": []}
    verdict = validate(whole, INFO, opinions=told)
    assert verdict.node_errors["2"]["errors"] == [ours[1], own]
    assert validate(whole, INFO, opinions={"2": []}).ok  # the node takes what its declaration does not


def test_a_choice_that_only_this_backend_lacks_is_no_error() -> None:
    told = {"2": [reason("value_not_in_list", "which")]}
    assert validate(prompt(SAVED, most=1), INFO, opinions=told).ok


async def test_a_backend_is_asked_and_queues_nothing(tmp_path: Path) -> None:
    own = reason("custom_validation_failed", "most")
    async with strange_backend(info=INFO, refusal=refusal(own)) as strange, rig(tmp_path, strange.url) as r:
        consultant = Consultant(r.pool)
        whole = prompt(SAVED)
        asked = consultant.asks(whole, lambda _text: False)
        assert await consultant.opinions(whole, None, asked) == {"2": [own]}
        assert await consultant.opinions(whole, ["1"], asked) is None  # nothing that leads to it
        assert len(strange.prompts) == 1 and "extra_data" not in strange.prompts[0]


async def test_without_an_answer_there_is_no_opinion(tmp_path: Path) -> None:
    """A backend that takes the prompt against all rules has it taken away again; one that is gone is not asked."""
    async with strange_backend(info=INFO) as strange, rig(tmp_path, strange.url) as r:
        consultant = Consultant(r.pool)
        assert await consultant.opinions(prompt(SAVED), None, {"2"}) is None
        (member,) = r.pool.members.values()
        assert member.leftovers
        assert await consultant.opinions(prompt(SAVED) | {"5": node("Elsewhere")}, None, {"2"}) is None
