"""The worker's one job: taken, begun, ended, put away, let go. Its directories are everybody's while it is on.

Touched by the server's loop and threads and, for its begin and end, by the thread that executes prompts.
"""

import contextlib
import logging
import os
import shutil
import threading
import time
from pathlib import Path
from typing import IO, Any

from .carried import Carried
from .files import locate, open_plain, strays, written
from .host import Host
from .shelf import Shelf
from .trace import Trace
from .workspace import Workspace, hand_over

log = logging.getLogger("comfyui-cluster-worker")


class Busy(Exception):
    """Another job has the worker."""


class Slot:
    """At most one job that has not ended. An ended one stays until its files are fetched; the next one's turn puts them
    where no job looks."""

    def __init__(self, host: Host, workspace: Workspace) -> None:
        self._host = host
        self._workspace = workspace
        self._lock = threading.RLock()
        self._taking = False
        self._trace = Trace()
        self._shelf = Shelf()
        self.job: Carried | None = None
        """The one that runs, or the last one, as long as nothing else had a turn."""

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
            job.touch()  # it may have run for longer than an ended one is kept

    def of(self, prompt_id: str) -> Carried | None:
        """The job of that id, if it is still here."""
        with self._lock:
            self._look()
            job = self.job if self.job is not None and self.job.id == prompt_id else self._shelf.of(prompt_id)
        if job is not None:
            job.touch()
        return job

    def put_away(self) -> None:
        """Make room for the next job: an ended one's files go where none looks, and stay. Blocking; raises OSError."""
        job = self.job
        if job is None or job.ended_s is None:
            return
        with job.lock:
            self._into_drawer(job)
        before = None
        with self._lock:
            if self.job is job:  # else it was let go of meanwhile
                self.job = None
                before = self._shelf.put(job)
        if before is not None:
            self._remove(before)
        self.tidy()

    def tidy(self) -> None:
        """Let go of what nobody comes for, the last job included if it has ended. Blocking."""
        with self._lock:
            self._look()
            unwanted = self._shelf.too_many()
            job = self.job
            if job is not None and job.ended_s is not None and self._shelf.unwanted(job):
                self.job = None
                unwanted.append(job)
        for job in unwanted:
            log.warning("The files of job %s were not fetched and are removed", job.id)
            self._remove(job)

    def evict(self, prompt_id: str | None = None) -> None:
        """Forget the last job if it has ended, or the ended one of that id, its files included. Blocking."""
        with self._lock:
            job = self.job
            if job is not None and prompt_id in (None, job.id):
                if job.ended_s is None:
                    return
                self.job = None
            else:
                job = None if prompt_id is None else self._shelf.take(prompt_id)
        if job is not None:
            self._remove(job)

    def files(self, job: Carried) -> list[dict[str, Any]]:
        """What it wrote so far and the dispatcher has to fetch: on shared storage only what went astray. Blocking."""
        told = ("path", "size", "mtime_ns", "from", "known", "stray")
        with job.lock:
            own = [] if job.room.scratch is None else written(job.room.dirs, job.room.stubs)
            return own + [{key: entry[key] for key in told} for entry in self._strays(job)]

    def open(self, job: Carried, path: str, *, stray: bool) -> IO[bytes] | None:
        """One of those, opened: it may move while it is read. Blocking; raises BadPath."""
        with job.lock:
            if stray:
                whole = next((entry["whole"] for entry in self._strays(job) if entry["path"] == path), None)
            else:
                whole = None if job.room.scratch is None or job.gone else locate(job.room.dirs, path)
            return None if whole is None else open_plain(Path(whole))

    def _into_drawer(self, job: Carried) -> None:
        """What lay in the server's own directories too: the next job may write, or read, under the same names."""
        found = self._strays(job)[len(job.kept) :]
        if job.gone or job.away or (job.room.scratch is None and not found):
            return
        drawer = job.drawer = job.drawer or self._workspace.drawer()
        for entry in found:
            target = drawer / f"{len(job.kept)}"
            own = job.stamps.get(entry["path"]) == entry["stamp"]
            (shutil.move if own else shutil.copyfile)(entry["whole"], target)
            job.kept.append(entry | {"whole": str(target), "size": target.stat().st_size})
            job.made.remove(entry["whole"])
        job.room = self._workspace.moved(job.room, drawer)
        job.away = True

    def _remove(self, job: Carried) -> None:
        with job.lock:
            for stray in self._strays(job)[len(job.kept) :]:
                if job.stamps.get(stray["path"]) == stray["stamp"]:
                    with contextlib.suppress(OSError):
                        os.unlink(stray["whole"])  # noqa: PTH108
            job.gone, job.made, job.kept = True, [], []
            self._workspace.remove(job.room, job.drawer)

    def _strays(self, job: Carried) -> list[dict[str, Any]]:
        """Those in the drawer, then those that are still where it made them."""
        made = job.made or (self._trace.made() if job.ended_s is None else [])
        return job.kept + strays(made, self._host.startup, job.room.dirs)

    def _runs(self, prompt_id: str) -> Carried | None:
        with self._lock:
            job = self.job
            return job if job is not None and job.id == prompt_id and job.ended_s is None else None

    def _look(self) -> None:
        """A waiting prompt that was taken out of the queue ends without a word."""
        job = self.job
        if job is not None and job.ended_s is None and job.queued and self._host.where(job.id) == "gone":
            self.ended()
