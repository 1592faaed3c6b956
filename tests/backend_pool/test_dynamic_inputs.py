"""Inputs that exist only for what a prompt chose: found, judged and merged as deep as they are nested."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_pool.prompts.dynamic_inputs import choices, live_inputs, specs_at, with_specs
from backend_pool.prompts.node_info import with_options
from backend_pool.prompts.validation import validate
from tests.engine.graphs import node

SIZES = ["COMBO", {"options": ["small", "large"]}]
INNER = ["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "model", "inputs": {"required": {"file": [["a", "b"], {}]}}}]}]
RESIZE: dict[str, Any] = {
    "input": {
        "required": {
            "how": [
                "COMFY_DYNAMICCOMBO_V3",
                {
                    "options": [
                        {"key": "by size", "inputs": {"required": {"size": SIZES}, "optional": {"n": ["INT", {}]}}},
                        {"key": "deep", "inputs": {"required": {"inner": INNER}}},
                        {"key": "not at all"},
                    ]
                },
            ],
            "images": [
                "COMFY_AUTOGROW_V3",
                {"template": {"input": {"required": {"image": ["IMAGE"]}}, "prefix": "image"}},
            ],
        },
        "optional": {"slot": ["COMFY_DYNAMICSLOT_V3", {"slotType": "IMAGE", "inputs": {"required": {"size": SIZES}}}]},
    },
    "output": [],
    "output_node": True,
}
INFO = {"Resize": RESIZE, "Image": {"input": {}, "output": ["IMAGE"]}}


@pytest.mark.parametrize(
    ("given_inputs", "live"),
    [
        ({}, []),
        ({"how": "by size"}, ["how.size", "how.n", "how"]),
        ({"how": "not at all"}, ["how"]),
        ({"how": "unknown"}, ["how"]),
        ({"how": "deep", "how.inner": "model"}, ["how.inner.file", "how.inner", "how"]),
        ({"how": "deep"}, ["how"]),
        ({"images.image0": ["1", 0], "images.image1": ["1", 0]}, ["images.image0", "images.image1"]),
        ({"slot": ["1", 0]}, ["slot.size", "slot"]),
    ],
)
def test_live_inputs(given_inputs: dict[str, Any], live: list[str]) -> None:
    """As comfy_api/latest/_io.py of 0.8.0 expands them."""
    assert [name for _, name, _ in live_inputs(RESIZE, given_inputs)] == live


@pytest.mark.parametrize(
    ("inputs", "errors"),
    [
        ({"how": "by size", "how.size": "large"}, []),
        ({"how": "by size", "how.size": "huge"}, ["how.size: 'huge' not in ['small', 'large']"]),
        ({"how": "by size"}, ["size"]),
        (
            {"how": "by size", "how.size": "large", "how.n": "x"},
            ["how.n, x, invalid literal for int() with base 10: 'x'"],
        ),
        ({"how": "deep", "how.inner": "model", "how.inner.file": "c"}, ["how.inner.file: 'c' not in ['a', 'b']"]),
        ({"how": "not at all", "images.image0": ["1", 0]}, []),
        ({"how": "not at all", "slot": ["1", 0], "slot.size": "tiny"}, ["slot.size: 'tiny' not in ['small', 'large']"]),
    ],
)
def test_nested_inputs_are_judged(inputs: dict[str, Any], errors: list[str]) -> None:
    verdict = validate({"1": node("Image"), "2": node("Resize", **inputs)}, INFO)
    assert [error["details"] for entry in verdict.node_errors.values() for error in entry["errors"]] == errors
    assert verdict.ok is not bool(errors)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("how", [["by size", "deep", "not at all"]]),
        ("how.size", [["small", "large"]]),
        ("how.inner.file", [["a", "b"]]),
        ("how.nothing", []),
        ("images.image7", [None]),
        ("slot.size", [["small", "large"]]),
        ("nothing", []),
        ("", []),
    ],
)
def test_specs_at(path: str, found: list[Any]) -> None:
    assert [choices(spec) for spec in specs_at(RESIZE, path)] == found


def test_a_change_reaches_every_level_and_nothing_else() -> None:
    def shorter(name: str, spec: Any) -> Any:
        return with_options(spec, ["only"]) if name in ("size", "file") else spec

    changed = with_specs(RESIZE, shorter)
    for path in ("how.size", "how.inner.file", "slot.size"):
        assert [choices(spec) for spec in specs_at(changed, path)] == [["only"]]
        assert [choices(spec) for spec in specs_at(RESIZE, path)] != [["only"]]
    assert with_specs(RESIZE, lambda _name, spec: spec) is RESIZE


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["a", "COMBO", "COMFY_DYNAMICCOMBO_V3", "STRING"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["required", "inputs", "options", "key", "template", "input", "a"]), inner)
    ),
    max_leaves=12,
)


@given(json_values, st.dictionaries(st.sampled_from(["a", "required", "a.a"]), json_values))
def test_no_declaration_of_a_custom_node_raises(inputs: Any, values: dict[str, Any]) -> None:
    entry = {"input": {"required": inputs}}
    for _, name, _ in list(live_inputs(entry, values)):
        specs_at(entry, name)
    with_specs(entry, lambda _name, spec: spec)
