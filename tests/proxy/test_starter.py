"""Which workflow a newcomer's canvas opens with."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from proxy.base.errors import ConfigError
from proxy.base.settings import Settings
from proxy.starter import (
    CHECKPOINT,
    FILE,
    FOLDER,
    FRONTEND_DEFAULT,
    MARKER,
    Starter,
    fitting,
    operators,
    read_workflow,
)
from tests.backend_pool.rig import rig
from user_sessions.directories import prepare_user


def declared(**inputs: Any) -> dict[str, Any]:
    return {"input": {"required": inputs}}


def pool(*classes: str, **lists: list[str]) -> dict[str, Any]:
    nodes = {name: declared() for name in classes}
    if "CheckpointLoaderSimple" in nodes:
        nodes["CheckpointLoaderSimple"] = declared(ckpt_name=[lists.get("ckpt_name", []), {}])
    return nodes


def test_nothing_is_chosen_before_a_backend_has_answered() -> None:
    assert fitting({}) is None


def test_the_first_checkpoint_of_the_pool_is_put_in() -> None:
    workflow = fitting(pool(*CHECKPOINT, ckpt_name=["first.safetensors", "other.safetensors"]))
    assert workflow is not None
    (loader,) = (node for node in workflow["nodes"] if node["type"] == "CheckpointLoaderSimple")
    assert loader["widgets_values"] == ["first.safetensors"]


@pytest.mark.parametrize("union", [pool(*CHECKPOINT), pool(*CHECKPOINT - {"KSampler"}, ckpt_name=["a"])])
def test_without_a_model_or_a_node_it_is_one_that_needs_none(union: dict[str, Any]) -> None:
    workflow = fitting(union)
    assert workflow is not None
    assert "CheckpointLoaderSimple" not in {node["type"] for node in workflow["nodes"]}


def test_a_pool_that_runs_the_frontends_own_graph_is_left_with_it() -> None:
    union = pool(*FRONTEND_DEFAULT.classes)
    for choice in FRONTEND_DEFAULT.choices:
        kind, key, value = (getattr(choice, name) for name in ("node", "input", "value"))
        union[kind] = declared(**{key: [[value], {}]})
    assert fitting(union) is None
    union["VAELoader"] = declared(vae_name=[["another.safetensors"], {}])
    assert fitting(union) is not None


@pytest.mark.parametrize(
    ("default", "left"),
    [
        (["KSampler", "CheckpointLoaderSimple/first.safetensors"], True),
        (["KSampler", "CheckpointLoaderSimple/absent.safetensors"], False),
        (["UNETLoader"], False),
        (["UNETLoader/first.safetensors"], False),
    ],
)
def test_a_frontend_may_say_what_its_own_graph_needs(default: list[str], left: bool) -> None:
    union = pool(*CHECKPOINT, ckpt_name=["first.safetensors"])
    assert (fitting(union, default) is None) is left


def test_an_operators_workflow_that_went_bad_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"nodes": []}))
    assert operators(path) == {"nodes": []} and operators(None) is None
    for text in ("{", '{"1": {"class_type": "SaveImage"}}', "[]"):
        path.write_text(text)
        assert operators(path) is None
        with pytest.raises(ConfigError):
            read_workflow(path)


@pytest.mark.parametrize("planted", [MARKER, f"default/workflows/{FOLDER}/{FILE}"])
async def test_a_fifo_in_the_starters_place_stops_nobody(tmp_path: Path, planted: str) -> None:
    """As a session of the user's may have put there."""
    operators_own = tmp_path / "start.json"
    operators_own.write_text('{"nodes": []}')
    settings = Settings(data_dir=tmp_path / "data", starter_workflow=operators_own)
    (tmp_path / "data/users").mkdir(parents=True)
    user = prepare_user(settings.data_dir, "ann").user
    (user / planted).parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(user / planted)
    async with rig(tmp_path) as r:
        there = await asyncio.to_thread(Starter(r.pool, settings).first_visit, "ann")
    assert there == (None if planted == MARKER else "/?workflows=Getting%20started")
    assert planted == MARKER or json.loads((user / planted).read_text()) == {"nodes": []}
