"""The OpenAPI document of the JSON API, and what its answers are made of."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proxy.api.openapi import document
from proxy.api.table import BASE, OPERATIONS
from proxy.views.jobs import error_of, title_of
from tests.proxy.control_server import API, Server, serving

PROMPT = {"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red fox"}}}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path) as running:
        await running.user("root", admin=True)
        yield running


async def test_the_document_is_served_and_every_route_is_in_it(server: Server) -> None:
    async with server.signed_in("root") as root:
        served = (await root.get(f"{API}/openapi.json")).json()
    assert served == json.loads(json.dumps(document(OPERATIONS, BASE)))
    assert served["openapi"] == "3.1.0"
    described = {(method.upper(), path) for path, methods in served["paths"].items() for method in methods}
    assert described == {(operation.method, BASE + operation.path) for operation in OPERATIONS}


def test_the_document_holds_together() -> None:
    described = document(OPERATIONS, BASE)
    schemas = described["components"]["schemas"]
    for reference in _references(described):
        assert reference.removeprefix("#/components/schemas/") in schemas
    ids = [operation["operationId"] for path in described["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
    for path, methods in described["paths"].items():
        for operation in methods.values():
            declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert declared == set(re.findall(r"\{(\w+)\}", path))
            assert operation["summary"] and operation["description"] and len(operation["responses"]) == 2


def test_every_operation_is_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    documented = set(re.findall(r"^\| `([A-Z]+) (\S+)` \|", text, re.MULTILINE))
    assert documented == {(operation.method, operation.path) for operation in OPERATIONS}


@pytest.mark.parametrize(
    ("prompt", "title"),
    [
        (PROMPT, "a red fox"),
        ({"1": {"class_type": "X", "inputs": {"text": "file"}}, "2": PROMPT["1"]}, "a red fox"),
        ({"1": {"class_type": "A", "inputs": {"text": ["2", 0]}}, "2": {"class_type": "B"}}, "A, B"),
        ({"1": {"class_type": "A", "inputs": {"text": "  a \n\n b  "}}}, "a b"),
        ({"1": {"class_type": "A", "inputs": {"text": "x" * 500}}}, "x" * 89 + "…"),
        ({"1": {"class_type": "A", "inputs": []}, "2": "junk", "3": None}, "A"),
        ({}, "Empty prompt"),
        (None, "Empty prompt"),
        ([], "Empty prompt"),
    ],
)
def test_titles(prompt: object, title: str) -> None:
    assert title_of(prompt) == title


@pytest.mark.parametrize("messages", [None, [], [["execution_error", {}]], [["execution_error"]], ["x"], [[1, 2, 3]]])
def test_odd_messages_have_no_error(messages: object) -> None:
    assert error_of(messages) == ""


def _references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)
