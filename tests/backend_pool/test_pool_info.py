"""The union that users see: every node and choice once, their own files, and nothing hidden."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend_pool.files.user_models import Files
from backend_pool.offers.fitness import demands, lacking
from backend_pool.offers.judgement import judge
from backend_pool.offers.node_union import merge
from backend_pool.offers.pool_info import PoolInfo
from backend_pool.prompts.node_info import options, upload_kind, usable
from tests.backend_pool.infos import info, providers


def no_models(_folder: str) -> list[str]:
    return []


NO_FILES = Files(lambda _where, _kind: [], no_models)


@pytest.mark.parametrize(
    ("spec", "choices"),
    [
        ([["a", "b"], {}], ["a", "b"]),
        ([[]], []),
        (["COMBO", {"options": ["a"]}], ["a"]),
        (["COMBO"], []),
        (["COMBO", {"remote": {}}], []),
        (["INT", {}], None),
        ("STRING", None),
        ([], None),
        (None, None),
        (3, None),
    ],
)
def test_options(spec: Any, choices: list[str] | None) -> None:
    """Old and new list inputs; custom nodes' accidents are no lists."""
    assert options(spec) == choices
    assert upload_kind(spec) is None


def test_the_union_has_every_choice_once() -> None:
    """Files lists of users are not merged over backends: they are each user's own."""
    merged = merge([info("a", "b"), info("b", "c", Only={"input": {}})]).nodes
    assert merged["Loader"]["input"]["required"]["ckpt_name"][0] == ["a", "b", "c"]
    assert "Only" in merged
    assert info("a", "b")["Loader"]["input"]["required"]["ckpt_name"][0] == ["a", "b"]


@given(st.lists(st.lists(st.text(max_size=3), max_size=4), min_size=1, max_size=4))
def test_a_union_holds_exactly_what_its_parts_hold(lists: list[list[str]]) -> None:
    """In the order of first sight, without doubles from later ones."""
    merged = options(merge([info(*names) for names in lists]).nodes["Loader"]["input"]["required"]["ckpt_name"])
    assert merged is not None and set(merged) == {name for names in lists for name in names}
    assert merged[: len(lists[0])] == lists[0]


@pytest.mark.parametrize("broken", [None, 3, [], {"input": 3}, {"input": None}])
def test_a_broken_node_does_not_hide_the_others(broken: Any) -> None:
    """A custom node may answer anything."""
    found = usable(info("a", Broken=broken))
    assert "Broken" not in found and "Loader" in found
    assert PoolInfo(providers(found)).document(NO_FILES).startswith(b"{")


def test_each_user_s_own_files_are_shown() -> None:
    """And nobody else's: the common part is shared, the nodes with file lists are written per user."""
    pool = PoolInfo(providers(usable(info("a"))))
    asked: list[tuple[str, str]] = []

    def files(where: str, kind: str) -> list[str]:
        asked.append((where, kind))
        return [f"{where}.png"]

    document = json.loads(pool.document(Files(files, no_models)))
    assert document["LoadImage"]["input"]["required"]["image"] == [["input.png"], {"image_upload": True}]
    assert document["LoadOut"]["input"]["required"]["image"][1]["options"] == ["output.png"]
    assert asked == [("input", "image/"), ("output", "image/")]
    assert document.keys() == info("a").keys() and document["Loader"] == info("a")["Loader"]
    assert pool.node("LoadImage", Files(files, no_models))["LoadImage"] == document["LoadImage"]
    assert pool.node("Nothing", NO_FILES) == {}


@pytest.mark.parametrize("infos", [[], [{}], [info("a")], [{"LoadImage": info()["LoadImage"]}]])
def test_the_document_is_json_for_any_pool(infos: list[Any]) -> None:
    """Also with no common or no personal part."""
    assert json.loads(PoolInfo(providers(*infos)).document(NO_FILES)).keys() == merge(infos).nodes.keys()


ODD_WORDS = ["a", "b\\c", "b/c", "COMBO", "COMFY_DYNAMICCOMBO_V3", "INT"]
odd_json = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from(ODD_WORDS),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["options", "key", "inputs", "required", "image_upload", "remote"]), inner)
    ),
    max_leaves=10,
)
odd_nodes = st.fixed_dictionaries(
    {
        "input": st.dictionaries(
            st.sampled_from(["required", "optional"]), st.dictionaries(st.sampled_from("xy"), odd_json)
        )
    }
)


@given(st.lists(st.dictionaries(st.sampled_from(["N", "M"]), odd_nodes), max_size=3), odd_json)
def test_no_custom_node_of_any_backend_breaks_the_union(infos: list[Any], value: Any) -> None:
    """Nor does a prompt that uses it."""
    pool = PoolInfo(providers(*map(usable, infos)), hidden=["a"])
    json.loads(pool.document(NO_FILES))
    prompt = {"1": {"class_type": "N", "inputs": {"x": value, "x.y": value}}}
    assert isinstance(judge(prompt, pool, NO_FILES).ok, bool)
    if "N" in pool.union:
        asked = demands(prompt, ["1"], pool)
        assert all(isinstance(lacking(asked, one), str | None) for one in pool.providers)
