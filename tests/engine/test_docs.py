"""docs/engine.md names every option, route, node and fault there is."""

import re
from pathlib import Path
from typing import get_args

import pytest
from aiohttp import web

from backend_pool.engine import routes_engine, routes_info
from backend_pool.engine.app import TABLES
from backend_pool.engine.faults import Fault, Kind, Point
from backend_pool.engine.nodes.catalogue import NODES
from backend_pool.engine.options import parse

DOCS = Path(__file__).parents[2] / "docs" / "engine.md"


def documented() -> set[str]:
    """Everything in backticks, and the pieces of it."""
    quoted = re.findall(r"`([^`]+)`", DOCS.read_text())
    return {*quoted, *(piece for text in quoted for piece in re.split(r"[\s,|\\]+", text))}


def test_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert options - documented() == set()


def test_routes() -> None:
    tables = (*TABLES, routes_info.internal, routes_engine.routes)
    paths = {route.path for table in tables for route in table if isinstance(route, web.RouteDef)}
    text = DOCS.read_text()
    assert {path for path in paths - documented() if path not in text} == set()


def test_nodes_and_faults() -> None:
    words = documented()
    assert set(NODES) - words == set()
    assert set(get_args(Kind)) - words == set()
    assert set(Fault.__dataclass_fields__) - words <= {"id", "fault"}
    text = DOCS.read_text()
    assert [point for point in get_args(Point) if point not in text] == []
