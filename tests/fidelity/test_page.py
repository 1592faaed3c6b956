"""docs/fidelity.md names every route and trap of the protocol, and only tests that exist."""

import ast
import re
from functools import cache
from pathlib import Path

from proxy.comfy.routes import OWNED, OWNED_API, owns
from tests.fidelity.differences import DIFFERENCES
from tests.fidelity.routes import ROUTES

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "fidelity.md").read_text()
TRAPS = 50
NODE_ID = re.compile(r"`([\w/]+\.py)::(\w+)`")
UNTESTED = "Not tested: "


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading."""
    text = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[1:]]


@cache
def functions(path: str) -> frozenset[str]:
    """Names of a test file's functions, methods included."""
    tree = ast.parse((ROOT / "tests" / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_named_test_exists() -> None:
    named = NODE_ID.findall(PAGE)
    assert len(named) > TRAPS
    assert [f"{path}::{name}" for path, name in named if name not in functions(path)] == []


def test_every_trap_is_there_once_with_a_test_or_a_reason() -> None:
    traps = rows("Traps")
    assert [row[0] for row in traps] == [str(number) for number in range(1, TRAPS + 1)]
    assert [row[0] for row in traps if len(row) != 3 or not (NODE_ID.search(row[2]) or UNTESTED in row[2])] == []


def test_every_route_is_there_with_a_test_or_a_reason() -> None:
    listed = rows("Routes")
    assert {row[0].strip("`") for row in listed} == set(ROUTES)
    assert len(listed) == len(ROUTES)
    assert [row[0] for row in listed if len(row) != 4 or not (NODE_ID.search(row[3]) or UNTESTED in row[3])] == []


def test_who_answers_is_who_the_code_says() -> None:
    for route, who, *_ in rows("Routes"):
        path = route.strip("`").partition(" ")[2]
        assert who == ("proxy" if path == "/ws" or owns(path) else "session"), route
    segments = {route.partition(" ")[2].removeprefix("/api").split("/")[1] for route in ROUTES}
    assert (OWNED | OWNED_API) - segments == {"history_v2"}  # an alias that newer clients ask for


def test_each_difference_of_the_suite_is_explained() -> None:
    told = PAGE.partition("\n## ComfyUI's own suite\n")[2].partition("\n## ")[0]
    assert [name for name in DIFFERENCES if f"`{name}`" not in told] == []
