"""What packs of nodes copied when they were imported: directories, held in names of their modules and classes.

ComfyUI reads its directories through functions at each use, and those are switched; a copy has to be replaced. What a
pack holds elsewhere (a default argument, a closure, an object of its own) is out of reach.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath
from types import ModuleType
from typing import Any

from .host import Dirs
from .wire import KINDS


@dataclass(frozen=True)
class Copy:
    """`name` of `holder`, a module or a class, holds the directory of a kind, with `rest` behind it."""

    holder: Any
    name: str
    kind: str
    rest: str
    made: type[str] | type[PurePath]


class Copies:
    """Found as modules come; `folders` are those that packs lie in."""

    def __init__(self, folders: list[str]) -> None:
        self._roots = tuple({f"{path}{os.sep}" for folder in folders for path in _spellings(folder)})
        self._seen: set[str] = set()
        self._found: list[Copy] = []

    def to(self, startup: Dirs, before: Dirs, dirs: Dirs) -> None:
        """Replace all copies. A module that came since the last switch has copied what was on then."""
        for name, module in list(sys.modules.items()):
            if name not in self._seen and str(getattr(module, "__file__", None) or "").startswith(self._roots):
                self._seen.add(name)
                self._found += _copies(module, startup, before)
        for copy in self._found:
            with contextlib.suppress(AttributeError, TypeError):  # a class that forbids it
                setattr(copy.holder, copy.name, copy.made(dirs.of(copy.kind) + copy.rest))


def _copies(module: ModuleType, *known: Dirs) -> Iterator[Copy]:
    own = [value for value in vars(module).values() if isinstance(value, type) and value.__module__ == module.__name__]
    for holder in (module, *own):
        for name, value in list(vars(holder).items()):
            found = _kind(str(value), known) if isinstance(value, str | PurePath) else None
            if found is not None:
                kind, path = found
                yield Copy(holder, name, kind, str(value)[len(path) :], type(value))


def _kind(text: str, known: tuple[Dirs, ...]) -> tuple[str, str] | None:
    """Which directory a text lies in, the innermost where one lies in another."""
    spelled = [(path, kind) for dirs in known for kind in KINDS for path in _spellings(dirs.of(kind))]
    found = [(path, kind) for path, kind in spelled if text == path or text.startswith(path + os.sep)]
    path, kind = max(found, key=lambda pair: len(pair[0]), default=("", ""))
    return (kind, path) if path else None


def _spellings(path: str) -> tuple[str, ...]:
    return path, os.path.abspath(path), os.path.realpath(path)  # noqa: PTH100 - compared as texts
