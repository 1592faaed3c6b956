"""The worker's one job: taken, begun, ended, let go. Its directories are everybody's while it is on.

Touched by the server's loop and, for the end, by the thread that executes prompts.
"""

import contextlib
import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

from .files import Stamp, locate, written
from .host import Host
from .workspace import Room, Workspace, hand_over

log = logging.getLogger("comfyui-cluster-worker")


class Busy(Exception):
    """Another job has the worker."""


@dataclass
class Carried:
    """A job on this worker. Times are wall-clock seconds."""

    id: str
    client: str | None
    room: Room
    before: dict[str, Stamp] = field(default_factory=dict)
    """What lay in the server's own directories: nodes that asked for those at import go on writing there."""
    since_s: float = field(default_factory=time.time)
    queued: bool = False
    """Whether the server took it: before that it is in no queue either."""
    ended_s: float | None = None


class Slot:
    """At most one job that has not ended. An ended one stays until its files are fetched or the next one comes."""

    def __init__(self, host: Host, workspace: Workspace) -> None:
        self._host = host
        self._workspace = workspace
        self._lock = threading.RLock()
        self._taking = False
        self.job: Carried | None = None

    @property
    def busy(self) -> bool:
        """Whether a job of the cluster is on its way or running."""
        return self._taking or (self.job is not None and self.job.ended_s is None)

    @property
    def owner(self) -> str | None:
        """The client of the running job: whatever is broadcast now is theirs."""
        job = self.job
        return job.client if job is not None and job.ended_s is None else None

    def take(self) -> None:
        """Reserve it for a new job. Raises Busy."""
        with self._lock:
            self._look()
            if self.busy:
                raise Busy
            self._taking = True

    def begin(self, job: Carried) -> None:
        """Switch directories to the job that it was taken for."""
        with self._lock:
            self.job = job
            self._host.switch(job.room.dirs, job.room.user)
            self._taking = False

    def give_up(self) -> None:
        """The job that it was taken for does not come."""
        with self._lock:
            self._taking = False

    def ended(self, prompt_id: str | None = None) -> None:
        """The job, or the one of that id, runs no more: give everybody their directories back."""
        with self._lock:
            job = self.job
            if job is None or job.ended_s is not None or prompt_id not in (None, job.id):
                return
            self._host.restore()
            with contextlib.suppress(OSError):
                hand_over(job.room, job.since_s)
            job.ended_s = time.time()

    def of(self, prompt_id: str) -> Carried | None:
        """The job of that id, if it is still here."""
        with self._lock:
            self._look()
            return self.job if self.job is not None and self.job.id == prompt_id else None

    def evict(self) -> None:
        """Forget an ended job, its files included. Blocking."""
        with self._lock:
            job = self.job
            if job is None or job.ended_s is None:
                return
            self.job = None
        for stray in self._strays(job):
            with contextlib.suppress(OSError):
                locate(self._host.startup, stray["path"]).unlink()
        self._workspace.remove(job.room)

    def files(self, job: Carried) -> list[dict[str, Any]]:
        """What it wrote so far and the dispatcher has to fetch: on shared storage only what went astray. Blocking."""
        own = [] if job.room.scratch is None else written(job.room.dirs, job.room.stubs)
        return own + [entry | {"stray": True, "from": 0, "known": False} for entry in self._strays(job)]

    def _strays(self, job: Carried) -> list[dict[str, Any]]:
        """Files that came to the server's own directories meanwhile: nobody else was at work."""
        return written(self._host.startup, job.before)

    def _look(self) -> None:
        """A waiting prompt that was taken out of the queue ends without a word."""
        job = self.job
        if job is not None and job.ended_s is None and job.queued and self._host.where(job.id) == "gone":
            self.ended()
