"""Catalogues of the operator's shared folders, templates, and the internal routes."""

import importlib.util
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.user_sessions.light.conftest import Running, serving, spec_in
from user_sessions.light.runtime import LightRuntime


async def get(session: Running, path: str) -> tuple[int, Any]:
    """GET; JSON where it is JSON."""
    async with session.http.get(path) as response:
        is_json = response.content_type == "application/json"
        return response.status, await (response.json() if is_json else response.text())


@pytest.fixture
def shared(session: Running) -> Running:
    """A session whose operator shares node packs and workflows."""
    packs = session.spec.public / "custom_nodes"
    for name, content in {
        "pack-a/locales/en/main.json": '{"menu": {"x": "X", "y": "Y"}}',
        "pack-a/locales/en/nodeDefs.json": '{"N": {"display_name": "Node"}}',
        "pack-a/locales/zh/main.json": '{"menu": {"x": "叉"}}',
        "pack-b/locales/en/main.json": '{"menu": {"y": "Why"}}',
        "pack-b/locales/de/main.json": "{broken",
        "pack-a/example_workflows/first.json": '{"nodes": [1]}',
        "pack-a/example_workflows/first.jpg": "picture",
        "pack-b/subgraphs/blur.json": '{"nodes": [2]}',
    }.items():
        (packs / name).parent.mkdir(parents=True, exist_ok=True)
        (packs / name).write_text(content)
    workflows = session.spec.public / "workflows"
    (workflows / "plain_start.json").write_text('{"nodes": [3]}')
    (workflows / "poster.json").write_text("{}")
    (workflows / "poster.png").write_bytes(b"png")
    return session


async def test_translations_are_merged(shared: Running) -> None:
    assert await get(shared, "/api/i18n") == (
        200,
        {
            "en": {"menu": {"x": "X", "y": "Why"}, "nodeDefs": {"N": {"display_name": "Node"}}},
            "zh": {"menu": {"x": "叉"}},
        },
    )


async def test_examples_of_node_packs(shared: Running) -> None:
    assert await get(shared, "/api/workflow_templates") == (200, {"pack-a": ["first"]})
    assert await get(shared, "/api/workflow_templates/pack-a/first.json") == (200, {"nodes": [1]})
    assert await get(shared, "/api/workflow_templates/pack-a/first.jpg") == (200, "picture")
    for path in ("/api/workflow_templates/pack-a/none.json", "/workflow_templates/pack-a/first.json"):
        assert (await get(shared, path))[0] == 404
    for path in ("pack-a/..%2F..%2Flocales", "..%2Fcustom_nodes/first.json", "pack-a/%2e%2e"):
        assert (await shared.raw(f"GET /api/workflow_templates/{path} HTTP/1.1"))[0] == 404


async def test_subgraphs(shared: Running) -> None:
    status, entries = await get(shared, "/api/global_subgraphs")
    assert status == 200
    [(name, entry)] = entries.items()
    assert entry == {"source": "custom_node", "name": "blur", "info": {"node_pack": "custom_nodes.pack-b"}}
    assert (await get(shared, f"/global_subgraphs/{name}"))[1] == entry | {"data": '{"nodes": [2]}'}
    assert await get(shared, "/global_subgraphs/unknown") == (200, None)


@pytest.mark.skipif(
    importlib.util.find_spec("comfyui_workflow_templates") is not None, reason="the official templates are installed"
)
async def test_the_operators_workflows_are_the_templates(shared: Running) -> None:
    status, index = await get(shared, "/templates/index.json")
    assert status == 200
    [category] = index
    assert category["moduleName"] == "default"
    assert [(card["name"], card["mediaSubtype"]) for card in category["templates"]] == [
        ("plain_start", "svg"),
        ("poster", "png"),
    ]
    assert await get(shared, "/templates/index.zh.json") == (200, index)
    assert await get(shared, "/templates/index_logo.json") == (200, {})
    assert await get(shared, "/templates/plain_start.json") == (200, {"nodes": [3]})
    assert "plain start" in (await get(shared, "/templates/plain_start-1.svg"))[1]
    assert await get(shared, "/templates/poster-1.png") == (200, "png")
    for name in ("none.json", "none-1.svg", "..%2F..%2Fcluster.db", "%2e%2e/input", ""):
        assert (await shared.raw(f"GET /templates/{name} HTTP/1.1"))[0] == 404


@pytest.mark.skipif(
    importlib.util.find_spec("comfyui_workflow_templates") is not None, reason="the official templates are installed"
)
async def test_our_starters_are_the_templates_where_there_are_no_others(session: Running) -> None:
    status, [category] = await get(session, "/templates/index.json")
    assert status == 200
    assert [card["name"] for card in category["templates"]] == ["checkpoint", "model_free"]
    for card in category["templates"]:
        status, workflow = await get(session, f"/templates/{card['name']}.json")
        assert status == 200 and workflow["nodes"]
        status, picture = await get(session, f"/templates/{card['name']}-1.{card['mediaSubtype']}")
        assert status == 200 and card["title"] in picture


async def test_without_anything_shared_every_list_is_empty(session: Running) -> None:
    shutil.rmtree(session.spec.public)
    for path in ("/i18n", "/workflow_templates", "/global_subgraphs"):
        assert await get(session, path) == (200, {})
    assert await get(session, "/internal/files/input") == (200, [])
    assert (await get(session, "/templates/index.json"))[0] == 200
    assert (await get(session, "/internal/folder_paths"))[0] == 200


async def test_core_extensions_are_listed_and_served(session: Running) -> None:
    status, extensions = await get(session, "/api/extensions")
    assert status == 200
    assert all(name.startswith("/extensions/core/") and name.endswith(".js") for name in extensions)
    for name in extensions[:3]:
        assert (await get(session, name))[0] == 200


async def test_features_are_the_same_on_both_paths(session: Running) -> None:
    bare = await get(session, "/features")
    assert bare == await get(session, "/api/features")
    assert bare[1]["max_upload_size"] == 2 * 1024 * 1024
    assert bare[1]["supports_preview_metadata"] is True


async def test_folder_paths_tell_nothing_of_the_host(session: Running, folder: Path) -> None:
    (session.spec.public / "models/own_kind").mkdir()
    status, paths = await get(session, "/internal/folder_paths")
    assert status == 200
    assert paths["text_encoders"] == ["models/text_encoders", "models/clip"]
    assert paths["own_kind"] == ["models/own_kind"]
    assert str(folder) not in json.dumps(paths)
    assert not any(value.startswith("/") for values in paths.values() for value in values)


async def test_files_newest_first(session: Running) -> None:
    own = session.spec.directories.input
    for age, name in enumerate(["new.png", "middle.png", "old.png"]):
        (own / name).write_text("x")
        os.utime(own / name, (1_700_000_000 - age, 1_700_000_000 - age))
    (own / ".hidden").write_text("x")
    (own / "folder").mkdir()
    (session.spec.public / "input/shared.png").write_text("x")
    (session.spec.public / "input/old.png").write_text("x")
    assert (await get(session, "/internal/files/input"))[1] == ["new.png", "middle.png", "old.png", "shared.png"]
    assert (await get(session, "/internal/files/output"))[1] == []
    assert await get(session, "/internal/files/user") == (400, {"error": "Invalid directory type"})


async def test_internal_routes_have_no_twin(session: Running) -> None:
    for path in ("/api/internal/logs", "/api/internal/folder_paths", "/api/templates/index.json", "/no/such/thing"):
        status, body = await get(session, path)
        assert status == 404
        assert body["error"]["type"] == "not_found"


async def test_the_wrong_method_is_405_in_json(session: Running) -> None:
    async with session.http.put("/settings") as response:
        assert response.status == 405
        assert "GET" in response.headers["Allow"]
        assert (await response.json())["error"]["type"] == "method_not_allowed"


async def test_a_fresh_sessions_terminal_says_who_it_serves(folder: Path, runtime: LightRuntime) -> None:
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)  # a quiet server's terminal is not an empty box either
    try:
        async with serving(runtime, spec_in(folder)) as session:
            [entry] = (await get(session, "/internal/logs/raw"))[1]["entries"]
    finally:
        root.setLevel(before)
    assert "session ready" in entry["m"] and "user=ann" in entry["m"] and "version=" in entry["m"]


async def test_logs_are_this_sessions_last_lines(session: Running) -> None:
    logging.getLogger("some.node").warning("line with \udcff and ü")
    status, text = await get(session, "/internal/logs")
    assert status == 200
    assert "some.node: line with" in text
    status, raw = await get(session, "/internal/logs/raw")
    assert set(raw) == {"entries", "size"}
    assert raw["entries"][-1]["m"].endswith("ü\n")
    for number in range(400):
        logging.getLogger("some.node").warning("flood %d", number)
    entries = (await get(session, "/internal/logs/raw"))[1]["entries"]
    assert len(entries) == 300
    assert "flood 399" in entries[-1]["m"]
