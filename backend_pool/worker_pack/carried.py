"""A job that the worker has, or has had: its directories, what it made elsewhere, when it ran.

`lock` is held while its files are listed, opened, put away or removed: a list that is read while they move has gaps.
"""

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .workspace import Room


@dataclass
class Carried:
    """Times are wall-clock seconds but `touched_s`."""

    id: str
    client: str | None
    room: Room
    made: list[str] = field(default_factory=list)
    """Files that it made in the server's own directories, or anywhere: nodes that asked for those at import do."""
    stamps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Those as they were when it ended: what has changed since is another's too."""
    since_s: float = field(default_factory=time.time)
    queued: bool = False
    """Whether the server took it: before that it is in no queue either."""
    ended_s: float | None = None
    drawer: Path | None = None
    """Where its files go when another job has its turn."""
    away: bool = False
    """Whether all of them are there."""
    kept: list[dict[str, Any]] = field(default_factory=list)
    """Of what it made elsewhere, what lies in the drawer by now."""
    gone: bool = False
    """Nothing of it is left."""
    touched_s: float = field(default_factory=time.monotonic)
    """When it was last asked for."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def touch(self) -> None:
        """Somebody still wants it."""
        self.touched_s = time.monotonic()
