"""How tests are divided among processes: those that share a server stay together, and what takes long begins first.

For `--dist loadscope`. pytest-xdist's own groups need marks that reach it through the names of tests, which pytest 9.2
no longer lets it change: there each test went its own way, and every process started every server.
"""

import re
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

ROOT = Path(__file__).resolve().parent.parent

SHARED = ("tests/browser", "tests/contract")
"""Folders whose server is for all modules."""

LONG = ("tests/browser/", "tests/system/test_chaos.py", "tests/contract/", "tests/system/", "tests/cli/")
"""Begun first, so that none is still under way when all others have ended."""


class Division(LoadScopeScheduling):  # type: ignore[misc]
    """Units in the order of `rank`."""

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def unit(nodeid: str) -> str:
    """Tests of one unit run in one process, one after the other; a test that shares nothing is one by itself."""
    module, _, name = nodeid.partition("::")
    folder = module.rpartition("/")[0]
    if folder in SHARED:
        return f"{folder} {_first_value(name)}"
    if not _wide(module):
        return nodeid
    return f"{module} {_first_value(name)}" if _wide(module, "params") else module


def rank(nodeid: str) -> int:
    """Lower ones begin earlier."""
    return next((number for number, place in enumerate(LONG) if nodeid.startswith(place)), len(LONG))


@cache
def _wide(module: str, word: str = "") -> bool:
    """Whether it has a fixture for all its tests, and one with that word in its arguments."""
    wide = re.findall(r'fixture\(([^)]*scope="module"[^)]*)', (ROOT / module).read_text(encoding="utf-8"))
    return any(word in arguments for arguments in wide)


def _first_value(name: str) -> str:
    """Of the parameters: that of the widest fixture comes first."""
    return re.split(r"[\[\]-]", f"{name}[")[1]
