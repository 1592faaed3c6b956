"""Which files a job's own thread makes, heard from the interpreter (audit events): proof that a file is the job's.

What other processes and threads write is never among them, nor what a library writes past Python. Costs a look at each
event's name. Hooks into the process once, for good: an audit hook cannot be taken away.
"""

import os
import sys
import threading
import weakref
from typing import Any

EVENTS = frozenset({"open", "os.rename", "os.remove"})
WRITES = os.O_WRONLY | os.O_RDWR
MOST_FILES = 10_000
"""Files of one job that are remembered; later ones stay where they are."""
MOST_THREADS = 1000
"""Threads of one job that are known at a time; what later ones make stays where it is."""


class Trace:
    """Of one job at a time. `begin` and `end` are called in the thread that executes it."""

    def __init__(self) -> None:
        self._thread: int | None = None
        self._children: list[threading.Thread] = []
        self._made: dict[str, None] = {}
        _hook_in()
        _traces.add(self)

    def reset(self) -> None:
        """Nothing is anybody's."""
        self._thread, self._children, self._made = None, [], {}

    def begin(self) -> None:
        """From now on what this thread, and threads that it starts, make is the job's."""
        self.reset()
        self._thread = threading.get_ident()

    def end(self) -> list[str]:
        """The job's thread is through; all that it made."""
        self._thread = None
        self._children = []
        return self.made()

    def made(self) -> list[str]:
        """Absolute paths of files that were not there before, in the order they were made."""
        return list(self._made)

    def heard(self, event: str, given: tuple[Any, ...]) -> None:
        """One of `EVENTS`, in the thread that causes it."""
        if self._thread is not None and self._is_the_jobs():
            self._note(event, given)

    def starts(self, thread: threading.Thread) -> None:
        """This thread is about to start that one."""
        if self._thread is not None and self._is_the_jobs():
            if len(self._children) >= MOST_THREADS:
                self._children = [child for child in self._children if child.is_alive()]
            if len(self._children) < MOST_THREADS:
                self._children.append(thread)

    def _note(self, event: str, given: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = given
            if flags & WRITES and not isinstance(path, int):
                self._make(_whole(path))
        elif event == "os.rename":
            source, target = _whole(given[0]), _whole(given[1])
            if source in self._made:  # else it is somebody's file that the job moves
                self._make(target)
                self._made.pop(source, None)
        elif event == "os.remove":
            self._made.pop(_whole(given[0]), None)

    def _make(self, path: str) -> None:
        if len(self._made) < MOST_FILES and not os.path.lexists(path):
            self._made[path] = None

    def _is_the_jobs(self) -> bool:
        here = threading.get_ident()
        return here == self._thread or any(child.ident == here and child.is_alive() for child in self._children)


_traces: weakref.WeakSet[Trace] = weakref.WeakSet()
_hooked = threading.Event()


def _hook_in() -> None:
    if _hooked.is_set():
        return
    _hooked.set()
    start = threading.Thread.start

    def start_noted(thread: threading.Thread) -> None:
        for trace in tuple(_traces):
            trace.starts(thread)
        start(thread)

    threading.Thread.start = start_noted  # type: ignore[method-assign, assignment]
    sys.addaudithook(_heard)


def _heard(event: str, given: tuple[Any, ...]) -> None:
    if event not in EVENTS:
        return
    try:
        for trace in tuple(_traces):
            trace.heard(event, given)
    except Exception:  # noqa: S110 - an error here would be the opener's
        pass


def _whole(path: Any) -> str:
    return os.path.abspath(os.fsdecode(path))  # noqa: PTH100 - a link is not followed
