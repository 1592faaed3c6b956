"""The worker's one job: taken, begun, ended, let go. Its directories are everybody's while it is on.

Touched by the server's loop and, for its begin and end, by the thread that executes prompts.
"""

import contextlib
import logging
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .files import strays, written
from .host import Host
from .trace import Trace
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
    made: list[str] = field(default_factory=list)
    """Files that it made in the server's own directories, or anywhere: nodes that asked for those at import do."""
    stamps: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Those as they were when it ended: what has changed since is another's too."""
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
        self._trace = Trace()
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
            self._trace.reset()
            self.job = job
            self._host.switch(job.room.dirs, job.room.user)
            self._taking = False

    def give_up(self) -> None:
        """The job that it was taken for does not come."""
        with self._lock:
            self._taking = False

    def executing(self, prompt_id: str) -> None:
        """Called in the thread that is about to execute a prompt, whoever's."""
        if self._runs(prompt_id) is not None:
            self._trace.begin()

    def executed(self, prompt_id: str) -> None:
        """Called in the thread that has executed a prompt: may take as long as handing its files over does."""
        job = self._runs(prompt_id)
        if job is None:
            return
        try:
            job.made = self._trace.end()
            job.stamps = {entry["path"]: entry["stamp"] for entry in self._strays(job)}
            hand_over(job.room, job.since_s)
        except OSError as error:
            log.warning("The files of job %s could not be handed over to their user: %s", job.id, error)
        finally:
            self.ended(prompt_id)

    def ended(self, prompt_id: str | None = None) -> None:
        """The job, or the one of that id, runs no more, or never did: give everybody their directories back."""
        with self._lock:
            job = self.job
            if job is None or job.ended_s is not None or prompt_id not in (None, job.id):
                return
            self._host.restore()
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
            if job.stamps.get(stray["path"]) == stray["stamp"]:
                with contextlib.suppress(OSError):
                    os.unlink(stray["whole"])  # noqa: PTH108
        self._workspace.remove(job.room)

    def files(self, job: Carried) -> list[dict[str, Any]]:
        """What it wrote so far and the dispatcher has to fetch: on shared storage only what went astray. Blocking."""
        own = [] if job.room.scratch is None else written(job.room.dirs, job.room.stubs)
        told = ("path", "size", "mtime_ns", "from", "known", "stray")
        return own + [{key: entry[key] for key in told} for entry in self._strays(job)]

    def stray(self, job: Carried, path: str) -> Path | None:
        """Where one of those lies. Blocking."""
        found = next((entry for entry in self._strays(job) if entry["path"] == path), None)
        return None if found is None else Path(found["whole"])

    def _strays(self, job: Carried) -> list[dict[str, Any]]:
        made = job.made or (self._trace.made() if job.ended_s is None else [])
        return strays(made, self._host.startup, job.room.dirs)

    def _runs(self, prompt_id: str) -> Carried | None:
        with self._lock:
            job = self.job
            return job if job is not None and job.id == prompt_id and job.ended_s is None else None

    def _look(self) -> None:
        """A waiting prompt that was taken out of the queue ends without a word."""
        job = self.job
        if job is not None and job.ended_s is None and job.queued and self._host.where(job.id) == "gone":
            self.ended()
