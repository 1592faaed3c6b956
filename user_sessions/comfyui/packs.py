"""Loads packs of custom nodes so that none of them takes the process down, and remembers which failed and why.

A pack may raise anything, call sys.exit, or hang: each has `import_timeout_s`, after which it is interrupted, and a
hard end a little later for one that does not listen. What ends the process all the same (os._exit, a crash in native
code) is known to the session host, since every import is announced.
"""

import asyncio
import contextlib
import functools
import importlib.util
import inspect
import logging
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.base.logs import events
from user_sessions.comfyui.alarm import TooSlow, alarm
from user_sessions.report import FailedNode
from user_sessions.warming import Importing

PARENT = "custom_nodes"
PRESTARTUP = "prestartup_script.py"
ERROR_LENGTH = 500
LOG_LENGTH = 8000

log = events(__name__)

Load = Callable[..., Any]


@dataclass
class Packs:
    """The guard around loading. `hard`: one that cannot be interrupted may end the process."""

    import_timeout_s: float
    excluded: frozenset[str] = frozenset()
    importing: Importing = lambda pack: None
    hard: bool = True
    failed: dict[str, FailedNode] = field(default_factory=dict)

    def guarded(self, load: Load) -> Load:
        """ComfyUI's `nodes.load_custom_node` with the guard around it; what ComfyUI brings itself passes untouched."""

        async def awaited(module_path: str, *args: Any, **kwargs: Any) -> bool:
            if _parent(load, module_path, args, kwargs) != PARENT:
                return bool(await load(module_path, *args, **kwargs))
            return await self._await(load, module_path, args, kwargs)

        def called(module_path: str, *args: Any, **kwargs: Any) -> bool:
            if _parent(load, module_path, args, kwargs) != PARENT:
                return bool(load(module_path, *args, **kwargs))
            return self._call(load, module_path, args, kwargs)

        return functools.wraps(load)(awaited if inspect.iscoroutinefunction(load) else called)

    def prestart(self, folders: Iterable[str], wanted: Callable[[str], bool]) -> None:
        """Run the prestartup scripts of the packs in these folders. A pack whose script fails is loaded still, as
        ComfyUI does."""
        for folder in folders:
            for path in sorted(Path(folder).iterdir()) if Path(folder).is_dir() else ():
                script = path / PRESTARTUP
                if path.suffix != ".disabled" and script.is_file() and wanted(str(path)):
                    self._call(_execute, str(path), (script,), {})

    async def _await(self, load: Load, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        name = Path(path).name
        if name in self.excluded:
            return False
        with self._watched(name) as attempt:
            async with asyncio.timeout(self.import_timeout_s):
                attempt.done = bool(await load(path, *args, **kwargs))
        return attempt.done

    def _call(self, load: Load, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        name = Path(path).name
        if name in self.excluded:
            return False
        with self._watched(name) as attempt:
            attempt.done = bool(load(path, *args, **kwargs))
        return attempt.done

    @contextlib.contextmanager
    def _watched(self, pack: str) -> Iterator["Attempt"]:
        attempt = Attempt()
        threads = set(threading.enumerate())
        self.importing(pack)
        logging.getLogger().addHandler(attempt)
        error = ""
        try:
            with alarm(self.import_timeout_s, hard=self.hard):
                yield attempt
        except (TooSlow, TimeoutError):
            error = f"It took longer than {self.import_timeout_s:g} s to load."
        except BaseException as reason:  # SystemExit, KeyboardInterrupt, CancelledError: whatever a pack raises
            attempt.lines.append(traceback.format_exc())
            error = f"{type(reason).__name__}: {reason}"
        finally:
            logging.getLogger().removeHandler(attempt)
            self.importing("")
        if not attempt.done:
            self._fail(pack, error or attempt.reason(), attempt.text())
        started = [thread.name for thread in threading.enumerate() if thread not in threads]
        if started:
            log.warning("a pack started threads, which no session has", pack=pack, threads=started[:5])

    def _fail(self, pack: str, error: str, text: str) -> None:
        self.failed[pack] = FailedNode(pack, error[:ERROR_LENGTH], text[-LOG_LENGTH:])
        log.warning("a pack did not load", pack=pack, error=error[:ERROR_LENGTH])


class Attempt(logging.Handler):
    """One import: whether it is done, and what it logged. ComfyUI logs the reason and returns False."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.done = False
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it; the oldest go when it is too much."""
        self.lines.append(record.getMessage())
        while len(self.lines) > 1 and sum(map(len, self.lines)) > LOG_LENGTH:
            del self.lines[0]

    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines)

    def reason(self) -> str:
        """The last line of a traceback, else of the log."""
        for text in [*(line for line in self.lines if "Traceback (most recent call last)" in line), self.text()]:
            last = text.strip().rpartition("\n")[2].strip()
            if last:
                return last
        return "ComfyUI did not accept it; it gave no reason."


def _parent(load: Load, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The argument `module_parent`; versions before it know custom nodes only."""
    try:
        bound = inspect.signature(load).bind(path, *args, **kwargs)
    except TypeError:
        return PARENT
    bound.apply_defaults()
    return str(bound.arguments.get("module_parent", PARENT))


def _execute(_path: str, script: Path) -> bool:
    spec = importlib.util.spec_from_file_location(str(script.with_suffix("")), script)
    if spec is None or spec.loader is None:
        return False
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    return True
