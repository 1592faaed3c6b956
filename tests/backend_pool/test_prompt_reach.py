"""Which nodes count: what outputs hang on by links as ComfyUI knows them."""

from typing import Any

import pytest

from backend_pool.prompts.reach import outputs, reached
from tests.engine.graphs import node

INFO = {"Save": {"output_node": True}, "Load": {"output_node": False}}


@pytest.mark.parametrize("link", [["1", 0], ["1", 0.0]])
def test_a_link_leads_on(link: Any) -> None:
    assert reached({"1": node("Load"), "2": node("Save", model=link), "3": node("Load")}, ["2"]) == {"1", "2"}


@pytest.mark.parametrize("value", [["1"], ["1", 0, 0], ["1", "0"], [1, 0], "1", {"__value__": ["1", 0]}, None])
def test_other_lists_are_values(value: Any) -> None:
    """ComfyUI executes nothing for the sake of a list of another shape, whatever node it seems to name."""
    assert reached({"1": node("Load"), "2": node("Save", model=value)}, ["2"]) == {"2"}


def test_circles_and_what_is_no_node_end_the_walk() -> None:
    prompt = {
        "1": node("Load", model=["2", 0]),
        "2": node("Save", model=["1", 0], mask=["3", 0], clip=["4", 0]),
        "3": 7,
    }
    assert reached(prompt, ["2", "9"]) == {"1", "2"}


def test_a_class_that_nobody_knows_may_be_an_output() -> None:
    assert outputs({"1": node("Load"), "2": node("Save"), "3": node("New"), "4": {}, "5": 7}, INFO) == [
        "2",
        "3",
        "4",
        "5",
    ]
