"""ComfyUI's verdicts, case by case, and the promise that nothing a client sends makes validation raise."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backend_pool.prompts.validation import types_match, validate

INFO: dict[str, Any] = {
    "Image": {"input": {"required": {"width": ["INT", {"min": 16, "max": 64}]}}, "output": ["IMAGE"]},
    "Text": {"input": {"required": {"text": ["STRING", {}]}, "optional": {"scale": ["FLOAT"]}}, "output": ["STRING"]},
    "Union": {"input": {"required": {"value": ["STRING,IMAGE", {}]}}, "output": ["*"], "output_node": True},
    "Load": {"input": {"required": {"image": [["a.png"], {"image_upload": True}]}}, "output": ["IMAGE", "MASK"]},
    "Pick": {
        "input": {
            "required": {
                "old": [["a", "b"], {}],
                "new": ["COMBO", {"options": ["x", "y"]}],
                "many": ["COMBO", {"options": ["p", "q"], "multiselect": True}],
                "long": [[str(number) for number in range(21)]],
                "remote": ["COMBO", {"remote": {"route": "/x"}}],
                "flag": ["BOOLEAN", {}],
            }
        },
        "output": [],
        "output_node": True,
    },
    "Chain": {"input": {"required": {"image": ["IMAGE"]}}, "output": ["IMAGE"]},
    "Grow": {"input": {"required": {"images": ["COMFY_AUTOGROW_V3", {}]}}, "output": [], "output_node": True},
    "Save": {"input": {"required": {"images": ["IMAGE", {}]}}, "output": [], "output_node": True},
}
PICK = {"old": "a", "new": "x", "many": {"__value__": ["p", "q"]}, "long": "3", "remote": "z", "flag": 1}


def node(kind: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": kind, "inputs": inputs}


def graph(image: Any, kind: str = "Image", **more: Any) -> dict[str, Any]:
    return {"1": node(kind, **image), "2": node("Save", images=["1", 0])} | more


def reasons(prompt: Any) -> dict[str, list[tuple[str, str]]]:
    verdict = validate(prompt, INFO)
    return {
        node_id: [(error["type"], error["details"]) for error in entry["errors"]]
        for node_id, entry in verdict.node_errors.items()
    }


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (graph({}), {"1": [("required_input_missing", "width")]}),
        (graph({"width": 5}), {"1": [("value_smaller_than_min", "width")]}),
        (graph({"width": 65}), {"1": [("value_bigger_than_max", "width")]}),
        (
            graph({"width": "x"}),
            {"1": [("invalid_input_type", "width, x, invalid literal for int() with base 10: 'x'")]},
        ),
        (graph({"width": ["9"]}), {"1": [("bad_linked_input", "width")]}),
        ({"2": node("Save", images=["9", 0])}, {"2": [("exception_during_validation", "'9'")]}),
        (
            graph({"image": ["9", 0]}, "Chain"),
            {"1": [("exception_during_inner_validation", "'9'")]},
        ),
        (
            {"1": node("Image", width=16), "2": node("Save", images=["1", 7])},
            {"2": [("exception_during_validation", "tuple index out of range")]},
        ),
        (
            graph({"text": "hi"}, "Text"),
            {"2": [("return_type_mismatch", "images, received_type(STRING) mismatch input_type(IMAGE)")]},
        ),
        ({"1": {"class_type": "Save"}}, {"1": [("exception_during_validation", "'inputs'")]}),
        (
            {"1": {"class_type": "Save", "inputs": []}},
            {"1": [("exception_during_validation", "inputs must be an object")]},
        ),
        ({"1": node("Pick", **PICK | {"old": "c"})}, {"1": [("value_not_in_list", "old: 'c' not in ['a', 'b']")]}),
        ({"1": node("Pick", **PICK | {"new": "c"})}, {"1": [("value_not_in_list", "new: 'c' not in ['x', 'y']")]}),
        (
            {"1": node("Pick", **PICK | {"long": 3})},
            {"1": [("value_not_in_list", "long: '3' not in (list of length 21)")]},
        ),
        (
            {"1": node("Pick", **PICK | {"many": {"__value__": ["p", "r"]}})},
            {"1": [("value_not_in_list", "many: 'r' not in ['p', 'q']")]},
        ),
    ],
)
def test_node_errors(prompt: Any, expected: Any) -> None:
    assert reasons(prompt) == expected
    assert validate(prompt, INFO).ok is False


@pytest.mark.parametrize(
    ("prompt", "kind", "details"),
    [
        ([], "invalid_prompt", "Received list"),
        (None, "invalid_prompt", "Received NoneType"),
        ({"1": "Save"}, "invalid_prompt", "Node ID '#1'"),
        ({"1": {"inputs": {}}}, "invalid_prompt", "Node ID '#1'"),
        ({"1": node("Nope")}, "invalid_prompt", "Node ID '#1'"),
        ({"1": {"class_type": ["Save"], "inputs": {}}}, "invalid_prompt", "Node ID '#1'"),
        ({}, "prompt_no_outputs", ""),
        ({"1": node("Image", width=16)}, "prompt_no_outputs", ""),
    ],
)
def test_refused_as_a_whole(prompt: Any, kind: str, details: str) -> None:
    verdict = validate(prompt, INFO)
    assert verdict.error is not None
    assert (verdict.ok, verdict.error["type"], verdict.error["details"]) == (False, kind, details)
    assert verdict.body()["node_errors"] == {}


def test_the_answer_of_a_missing_class_is_comfyuis() -> None:
    assert validate({"1": node("Nope")}, INFO).body() == {
        "error": {
            "type": "invalid_prompt",
            "message": "Cannot execute because node Nope does not exist.",
            "details": "Node ID '#1'",
            "extra_info": {},
        },
        "node_errors": {},
    }


def test_the_answer_of_a_failed_output_is_comfyuis() -> None:
    assert validate({"10": node("Save")}, INFO).body() == {
        "error": {
            "type": "prompt_outputs_failed_validation",
            "message": "Prompt outputs failed validation",
            "details": "Required input is missing: images",
            "extra_info": {},
        },
        "node_errors": {
            "10": {
                "errors": [
                    {
                        "type": "required_input_missing",
                        "message": "Required input is missing",
                        "details": "images",
                        "extra_info": {"input_name": "images"},
                    }
                ],
                "dependent_outputs": ["10"],
                "class_type": "Save",
            }
        },
    }


def test_half_valid_prompts_run_their_valid_half() -> None:
    verdict = validate(graph({"width": 16}) | {"3": node("Save")}, INFO)
    assert (verdict.ok, verdict.outputs, list(verdict.node_errors)) == (True, ["2"], ["3"])


def test_targets_choose_outputs() -> None:
    prompt = graph({"width": 16}) | {"3": node("Save", images=["1", 0])}
    assert validate(prompt, INFO, targets=["3"]).outputs == ["3"]
    nothing = validate(prompt, INFO, targets=["1"]).error
    malformed = validate(prompt, INFO, targets=7).error
    assert nothing is not None and nothing["type"] == "prompt_no_outputs"
    assert malformed is not None and malformed["type"] == "invalid_prompt"


def test_values_are_coerced_in_a_copy() -> None:
    prompt = graph({"width": "16"}) | {"3": node("Pick", **PICK)}
    before = copy.deepcopy(prompt)
    verdict = validate(prompt, INFO)
    assert verdict.ok and prompt == before
    assert verdict.prompt["1"]["inputs"]["width"] == 16
    assert verdict.prompt["3"]["inputs"]["many"] == ["p", "q"]
    assert verdict.prompt["3"]["inputs"]["flag"] is True


def test_upload_inputs_go_to_the_custom_check() -> None:
    prompt = graph({"image": "nope.png"}, "Load")
    seen: list[Any] = []

    def check(kind: str, name: str, value: Any, spec: Any) -> str | None:
        seen.append((kind, name, value, spec[0]))
        return f"Invalid image file: {value}"

    verdict = validate(prompt, INFO, custom=check)
    assert seen == [("Load", "image", "nope.png", ["a.png"])]
    assert verdict.node_errors["1"]["errors"] == [
        {
            "type": "custom_validation_failed",
            "message": "Custom validation failed for node",
            "details": "image - Invalid image file: nope.png",
            "extra_info": {"input_name": "image"},
        }
    ]
    assert validate(prompt, INFO).ok, "without a check the list is not consulted, as with VALIDATE_INPUTS"


def test_inputs_named_at_run_time_are_left_to_the_backend() -> None:
    assert validate({"1": node("Grow", **{"images.image0": ["1", 0]})}, INFO).ok


def test_cycles_are_named() -> None:
    prompt = {
        "1": node("Chain", image=["2", 0]),
        "2": node("Chain", image=["1", 0]),
        "3": node("Save", images=["1", 0]),
    }
    found = reasons(prompt)
    assert found == {key: [("dependency_cycle", "1 (Chain) -> 2 (Chain) -> 1 (Chain)")] for key in ("1", "2")}
    assert reasons({"1": node("Union", value=["1", 0])})["1"][0][0] == "dependency_cycle"


@pytest.mark.parametrize("closed", [False, True])
def test_deep_graphs_do_not_overflow(closed: bool) -> None:
    depth = 4_000  # Python's own limit is 1,000
    prompt = {str(i): node("Chain", image=[str(i + 1), 0]) for i in range(depth)}
    prompt[str(depth)] = node("Chain", image=["0", 0]) if closed else node("Image", width=16)
    verdict = validate(prompt | {"out": node("Save", images=["0", 0])}, INFO)
    assert verdict.ok is not closed
    assert len(verdict.node_errors) == (depth + 1 if closed else 0)


def test_very_many_failures_stay_linear() -> None:
    verdict = validate({str(i): node("Save") for i in range(4_000)}, INFO)
    assert len(verdict.node_errors) == 4_000
    assert sum(len(entry["dependent_outputs"]) for entry in verdict.node_errors.values()) < 12_000


@pytest.mark.parametrize(
    ("received", "wanted", "match"),
    [
        ("IMAGE", "IMAGE", True),
        ("IMAGE", "MASK", False),
        ("*", "MASK", True),
        ("IMAGE", "*", True),
        ("IMAGE", "MASK, IMAGE", True),
        ("INT,FLOAT", "STRING,FLOAT", True),
        ("INT,FLOAT", "STRING", False),
        (["a", "b"], "COMBO", True),
        (["a", "b"], ["a"], False),
        ("COMFY_MATCHTYPE_V3", "IMAGE", True),
        ("STRING", ["a"], False),
    ],
)
def test_type_unions(received: object, wanted: object, match: bool) -> None:
    assert types_match(received, wanted) is match


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([*"12", "a", "x", "Save"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["width", "images", "image", "value", "text", "scale", "old", "new", "many", "long", "flag"])
links = st.tuples(st.sampled_from("123"), st.integers(-2, 2)).map(list)
nodes = st.fixed_dictionaries(
    {"class_type": st.sampled_from(list(INFO)), "inputs": st.dictionaries(names, links | json_values, max_size=4)}
)


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from("123"), nodes | json_values, max_size=3) | json_values, json_values)
def test_nothing_raises_and_every_answer_is_json(prompt: Any, targets: Any) -> None:
    before = copy.deepcopy(prompt)
    for chosen in (None, targets):
        verdict = validate(prompt, INFO, targets=chosen)
        assert verdict.ok == (verdict.error is None) == bool(verdict.outputs)
        json.dumps(verdict.body())
    assert repr(prompt) == repr(before)
