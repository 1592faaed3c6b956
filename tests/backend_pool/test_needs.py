"""What a prompt asks of a backend: nodes, choices of every kind of list, files under either spelling."""

from typing import Any

import pytest

from backend_pool.needs import Choice, Needs, lacks, needs, refused_needs
from backend_pool.node_union import merge
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
