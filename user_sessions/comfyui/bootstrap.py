"""Run a module of ours under another Python, such as ComfyUI's: `PYTHON bootstrap.py MODULE ARGUMENTS...`.

Makes the packages `proxy` and `user_sessions` importable there and nothing else of our installation: our libraries must
not meet that Python's. What is run this way may import the standard library and, once ComfyUI is there, what it brings.
"""

import importlib.abc
import importlib.machinery
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
OURS = frozenset({"proxy", "user_sessions"})
OLDEST = (3, 11)


class OurPackages(importlib.abc.MetaPathFinder):
    """Finds the two packages where this file lies; what is inside them is found the usual way."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """See MetaPathFinder."""
        if fullname not in OURS:
            return None
        return importlib.machinery.PathFinder.find_spec(fullname, [str(ROOT)], target)


def main() -> None:
    """Install the finder and be that module."""
    if sys.version_info < OLDEST:
        sys.exit(f"Python {sys.version.split()[0]} is too old for sessions: 3.11 or newer is needed.")
    if sys.path and Path(sys.path[0]).resolve() == HERE.parent:
        del sys.path[0]  # Python puts a script's folder first: our modules would shadow ComfyUI's
    sys.meta_path.insert(0, OurPackages())
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
