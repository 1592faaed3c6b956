"""Every user's connected tabs, and what their running jobs have told so far.

The listener of the runners: delivers a job's frames to the tab that submitted it, `status` to all tabs of its user, and
nothing to anybody else.
"""

import asyncio
from collections import defaultdict

from backend_pool.comfy.frames import Frame, encode
from backend_pool.jobs.queries import JobQueries
from backend_pool.model import Job
from proxy.base.errors import ClusterError
from proxy.base.logs import events
from proxy.base.repeated import Repeated
from proxy.base.tasks import Tasks
from proxy.tabs.replay import Replay
from proxy.tabs.user_socket import Restarted, TooManyTabs, UserSocket

log = events(__name__)
often = Repeated(log)

SESSION_NEWS = "cluster_session"
"""Kind of the frame that tells a tab to look at its session; `webui_session.js` listens to it."""
TABS_LIMIT = 50
"""Tabs one user may have open; overflow closes the oldest. Each may hold frames that wait for its browser."""
STATUS_AGAIN_S = 1.0
"""Pause before the queue is counted again for tabs, after a database that gave no answer."""
PREVIEW_AFTER_S = (2.0, 3.0, 5.0)
"""Pauses before the last preview is sent again: a tab that came back shows none before it has loaded its graph, which
takes some seconds (seen with frontend 1.58.1), and a slow step may bring no newer one for minutes."""


class UserEvents:
    """Implements backend_pool.jobs.listener.JobListener."""

    def __init__(self, jobs: JobQueries, tasks: Tasks) -> None:
        self._jobs = jobs
        self._tasks = tasks
        self._sockets: dict[int, list[UserSocket]] = defaultdict(list)
        self._replays: dict[int, tuple[Job, Replay]] = {}
        self._status_due: set[int] = set()
        self._telling: set[int] = set()
        self._changes = 0

    def frame(self, job: Job, frame: Frame) -> None:
        """A frame for the tab that submitted `job`; without one ComfyUI broadcasts, here to the user's own tabs."""
        if self._replays.setdefault(job.key, (job, Replay()))[1].note(frame):
            del self._replays[job.key]
        for socket in self._sockets.get(job.user_id, ()):
            if job.client_id is None or socket.sid == job.client_id:
                socket.push(frame)

    def queue_changed(self, user_id: int) -> None:
        """Send `status` soon; changes in between are told once, and an older count never after a newer one."""
        self._changes += 1
        if user_id not in self._sockets:
            return
        self._status_due.add(user_id)
        if user_id not in self._telling:
            self._telling.add(user_id)
            self._tasks.start(f"status {user_id}", self._tell_status(user_id))

    def forget(self, job: Job) -> None:
        """A job ended without an end marker, as one that is cancelled while it waits: nothing of it is replayed."""
        self._replays.pop(job.key, None)

    def progress(self, user_id: int, prompt_id: str) -> float | None:
        """Progress of the node that runs now, 0 to 1; None when nothing is known."""
        for job, replay in self._replays.values():
            if job.user_id == user_id and job.prompt_id == prompt_id:
                return replay.progress
        return None

    async def join(self, socket: UserSocket) -> None:
        """Connect a tab: its status with sid at once, then what its running job has told (client demands B2)."""
        changes = self._changes
        remaining = await self._jobs.remaining(socket.user_id)
        socket.push(encode("status", {**_status(remaining), "sid": socket.sid}))
        for job, replay in self._replays.values():
            if job.user_id == socket.user_id and job.client_id in (None, socket.sid):
                for frame in replay.frames():
                    socket.push(frame)
                self._tasks.start(f"preview for {socket.sid}", self._show_preview(job, socket))
        tabs = self._sockets[socket.user_id]
        tabs.append(socket)
        if len(tabs) > TABS_LIMIT:
            tabs.pop(0).end(TooManyTabs())
        if changes != self._changes:  # while we counted; a client that waits for 0 must not miss it
            self.queue_changed(socket.user_id)

    def leave(self, socket: UserSocket) -> None:
        """A tab is gone; another tab with the same clientId keeps its frames."""
        tabs = self._sockets.get(socket.user_id, [])
        if socket in tabs:
            tabs.remove(socket)
        if not tabs:
            self._sockets.pop(socket.user_id, None)

    def session_news(self, user_id: int) -> None:
        """Have that user's tabs look at their session again. Programs are not told: some throw on a kind that ComfyUI
        does not have (client demands B9)."""
        for socket in self._sockets.get(user_id, ()):
            if socket.announced:
                socket.push(encode(SESSION_NEWS, {}))

    def queue_news(self, user_id: int, frame: Frame) -> None:
        """What that user's jobs and group may expect, for the tabs that asked for it."""
        for socket in self._sockets.get(user_id, ()):
            if socket.wants_queue:
                socket.push(frame)

    def reconnect(self, user_id: int) -> None:
        """Close that user's tabs' sockets: a browser comes back at once and is replayed."""
        for socket in self._sockets.get(user_id, ()):
            socket.end(Restarted())

    def connected(self) -> int:
        """How many tabs are connected."""
        return sum(map(len, self._sockets.values()))

    async def _show_preview(self, job: Job, socket: UserSocket) -> None:
        _, replay = self._replays.get(job.key, (job, None))
        before = replay.preview() if replay is not None else []
        for pause_s in PREVIEW_AFTER_S:
            await asyncio.sleep(pause_s)
            _, replay = self._replays.get(job.key, (job, None))
            preview = replay.preview() if replay is not None else []
            if preview != before or socket not in self._sockets.get(job.user_id, ()):
                return  # the tab has been sent newer ones, or is gone
            for frame in preview:
                socket.push(frame)

    async def _tell_status(self, user_id: int) -> None:
        try:
            while user_id in self._status_due and user_id in self._sockets:
                self._status_due.discard(user_id)
                try:
                    remaining = await self._jobs.remaining(user_id)
                except ClusterError as error:  # nothing else may change for hours, and clients wait for a 0
                    often.warning("status not told yet", user=user_id, error=error.message)
                    self._status_due.add(user_id)
                    await asyncio.sleep(STATUS_AGAIN_S)
                    continue
                for socket in self._sockets.get(user_id, ()):
                    socket.push(encode("status", _status(remaining)))
        finally:
            self._telling.discard(user_id)


def _status(remaining: int) -> dict[str, object]:
    return {"status": {"exec_info": {"queue_remaining": remaining}}}
