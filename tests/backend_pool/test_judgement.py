"""What a pool of several backends says to a prompt: refused at once, with words, only for what nobody has."""

from typing import Any

import pytest

from backend_pool.files.user_models import Files
from backend_pool.offers.fitness import demands, lacking
from backend_pool.offers.judgement import absent_class, judge
from backend_pool.offers.pool_info import PoolInfo
from backend_pool.prompts.validation import Verdict
from tests.backend_pool.infos import provider, providers
from tests.engine.graphs import node

NO_FILES = Files(lambda _where, _kind: [], lambda _folder: [])


def loader(*names: str, **more: Any) -> dict[str, Any]:
    return {"input": {"required": {"ckpt_name": [list(names), {}], **more}}, "output": ["MODEL"]}


def offering(*names: str, **more: Any) -> dict[str, Any]:
    lora = {"input": {"required": {"lora_name": ["COMBO", {"options": ["l.safetensors"]}]}}, "output": ["MODEL"]}
    save = {"input": {"required": {"model": ["MODEL"]}}, "output": [], "output_node": True}
    return {"Load": loader(*names), "Lora": lora, "Save": save, **more}


def prompt(name: str, kind: str = "Load", **more: Any) -> dict[str, Any]:
    return {"1": node(kind, ckpt_name=name, **more), "2": node("Save", model=["1", 0])}


def said(verdict: Verdict) -> tuple[str, str]:
    assert verdict.error is not None
    return verdict.error["type"], verdict.error["details"]


FOUR = PoolInfo(providers(*(offering(f"{name}.safetensors") for name in "abcd")))


def test_a_model_that_nobody_has_is_named_with_its_backends() -> None:
    verdict = judge(prompt("flux.safetensors"), FOUR, NO_FILES)
    words = "flux.safetensors is on none of 4 backends."
    assert said(verdict) == ("prompt_outputs_failed_validation", words)
    (error,) = verdict.node_errors["1"]["errors"]
    assert error["details"].startswith("ckpt_name: 'flux.safetensors' not in [") and error["details"].endswith(words)
    assert (error["type"], error["extra_info"]["backends"], error["extra_info"]["of"]) == ("value_not_in_list", 0, 4)


def test_a_node_that_nobody_has_is_named() -> None:
    verdict = judge(prompt("a.safetensors", "Nope"), FOUR, NO_FILES)
    assert said(verdict) == ("invalid_prompt", "Node ID '#1'. No backend has the node Nope.")
    assert verdict.error is not None and verdict.error["extra_info"]["class_type"] == "Nope"
    assert absent_class(verdict, prompt("a.safetensors", "Nope"), FOUR) == ("1", "Nope")


def test_what_is_on_several_backends_but_on_none_together() -> None:
    asked = prompt("a.safetensors") | {"3": node("Load", ckpt_name="b.safetensors"), "4": node("Save", model=["3", 0])}
    kind, details = said(judge(asked, PoolInfo(FOUR.providers[:2]), NO_FILES))
    assert kind == "no_single_backend"
    assert details == (
        "Each is on a backend but on no single one together: "
        "gpu-1 lacks checkpoint b.safetensors; gpu-2 lacks checkpoint a.safetensors."
    )
    assert "; and 1 more." in said(judge(asked, PoolInfo([*FOUR.providers, provider(9, offering("z"))]), NO_FILES))[1]


def test_a_stray_node_is_nobody_s_need() -> None:
    """ComfyUI looks only at what an output needs."""
    asked = prompt("a.safetensors") | {"3": node("Load", ckpt_name="gone.safetensors")}
    assert judge(asked, FOUR, NO_FILES).ok


@pytest.mark.parametrize("value", [["1", 0], 3, None, {"a": 1}])
def test_what_is_no_graph_is_comfyuis_to_refuse(value: Any) -> None:
    for pool in (PoolInfo(), FOUR, PoolInfo(hidden=["*"])):
        assert not judge(value, pool, NO_FILES).ok
        assert not judge({"1": value}, pool, NO_FILES).ok


def test_either_spelling_of_a_path_is_taken() -> None:
    pool = PoolInfo(providers(offering("sub\\a.safetensors"), offering("sub/a.safetensors", "sub/b.safetensors")))
    assert pool.union["Load"]["input"]["required"]["ckpt_name"][0] == ["sub\\a.safetensors", "sub/b.safetensors"]
    for name in ("sub/a.safetensors", "sub\\a.safetensors", "sub\\b.safetensors"):
        verdict = judge(prompt(name), pool, NO_FILES)
        assert verdict.ok, verdict.error
        able = [p.key for p in pool.providers if lacking(demands(prompt(name), ["2"], pool), p) is None]
        assert able == ([1, 2] if "a." in name else [2])


NEWER = offering("a.safetensors", Load=loader("a.safetensors", strength=["FLOAT", {"min": 0, "max": 1}]))


def test_backends_that_define_a_node_otherwise_are_asked_by_their_own_definition() -> None:
    """Most backends decide what users see; a prompt for the other definition is taken and goes there."""
    pool = PoolInfo(providers(NEWER, offering("a.safetensors"), offering("a.safetensors")))
    assert pool.varied == {"Load": {1}}
    assert "strength" not in pool.union["Load"]["input"]["required"]
    for asked, able in (
        (prompt("a.safetensors"), [2, 3]),
        (prompt("a.safetensors", strength=0.5), [1, 2, 3]),  # an input that a class does not declare is ignored
        (prompt("a.safetensors", strength=7), [2, 3]),
    ):
        assert judge(asked, pool, NO_FILES).ok
        wanted = demands(asked, ["2"], pool)
        assert [p.key for p in pool.providers if lacking(wanted, p) is None] == able
    assert lacking(demands(prompt("a.safetensors"), ["2"], pool), pool.providers[0]) == (
        "a version of node Load that takes its inputs"
    )
    other = PoolInfo(providers(NEWER, NEWER, offering("a.safetensors")))
    assert judge(prompt("a.safetensors"), other, NO_FILES).ok
    assert not judge(prompt("a.safetensors"), PoolInfo(providers(NEWER, NEWER)), NO_FILES).ok


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (prompt("secret-1.safetensors"), "secret-1.safetensors is not available here."),
        (prompt("clients/x.safetensors"), "clients/x.safetensors is not available here."),
        (prompt("CLIENTS\\x.safetensors"), "CLIENTS\\x.safetensors is not available here."),
        (prompt("a.safetensors", text="by embedding:secret-style:1.2, x"), "secret-style is not available here."),
        (prompt("a.safetensors", deep={"list": ["secret-2.pt"]}), "secret-2.pt is not available here."),
    ],
)
def test_hidden_models_are_neither_shown_nor_taken(asked: Any, words: str) -> None:
    names = ("a.safetensors", "secret-1.safetensors", "clients/x.safetensors")
    models = {"checkpoints": names, "embeddings": ["secret-style.pt", "open.pt"]}
    pool = PoolInfo([provider(1, offering(*names), models=models)], hidden=["secret-*", "checkpoints/clients/*"])
    assert pool.union["Load"]["input"]["required"]["ckpt_name"][0] == ["a.safetensors"]
    assert pool.models.names("checkpoints") == ["a.safetensors"] and pool.models.embeddings() == ["open"]
    assert said(judge(asked, pool, NO_FILES)) == ("prompt_outputs_failed_validation", words)
    assert judge(prompt("a.safetensors", text="embedding:open, my secret-plan"), pool, NO_FILES).ok


def test_a_denied_node_is_said_to_be_denied() -> None:
    pool = PoolInfo(FOUR.providers, denied=["Lora"])
    kind, details = said(judge(prompt("a.safetensors", "Lora"), pool, NO_FILES))
    assert (kind, details) == ("invalid_prompt", "Node ID '#1'. The administrators do not allow it here.")


def test_a_user_s_own_model_goes_where_it_can_be_read() -> None:
    """Offered to its owner alone, and only while a backend of the pool reads users' models."""
    asked = {"1": node("Lora", lora_name="mine/own.safetensors"), "2": node("Save", model=["1", 0])}
    own = Files(lambda _where, _kind: [], lambda folder: ["mine/own.safetensors"] if folder == "loras" else [])
    stock = provider(1, offering("a"))
    assert not judge(asked, PoolInfo([stock]), own).ok
    pool = PoolInfo([stock, provider(2, offering("a"), reads_user_models=True)])
    assert judge(asked, pool, own).ok and not judge(asked, pool, NO_FILES).ok
    wanted = demands(asked, ["2"], pool)
    assert [lacking(wanted, p) for p in pool.providers] == ["LoRA mine/own.safetensors", None]
    listed = pool.node("Lora", own)["Lora"]["input"]["required"]["lora_name"][1]["options"]
    assert listed == ["l.safetensors", "mine/own.safetensors"]
    assert pool.node("Lora", NO_FILES)["Lora"]["input"]["required"]["lora_name"][1]["options"] == ["l.safetensors"]


def test_before_all_have_told_a_model_that_none_lists_is_waited_for() -> None:
    """After a restart the first backend to answer must not get the jobs of the others."""
    asked = prompt("elsewhere.safetensors")
    waits, settled = (demands(asked, ["2"], FOUR, settled=settled) for settled in (False, True))
    assert lacking(waits, FOUR.providers[0]) == "checkpoint elsewhere.safetensors"
    assert lacking(settled, FOUR.providers[0]) is None, "all were heard: one of them says what is wrong"
