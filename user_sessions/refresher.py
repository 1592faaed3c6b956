"""The session host's refreshes: one at a time, known to whoever asks, and nothing lost when it fails.

A refresh runs to its end whatever becomes of the proxy or command that asked for it. Sessions that still have an older
zygote than the current one are outdated; a retired zygote without sessions is ended here.
"""

from dataclasses import replace

from proxy.base.clock import now_ms
from proxy.base.errors import Unavailable
from proxy.base.logs import events
from proxy.base.tasks import Tasks
from user_sessions.report import Refresh
from user_sessions.roster import Roster
from user_sessions.zygotes import Zygotes

log = events(__name__)


class Refresher:
    """Knows the latest refresh."""

    def __init__(self, zygotes: Zygotes, roster: Roster, tasks: Tasks, timeout_s: float) -> None:
        self._zygotes = zygotes
        self._roster = roster
        self._tasks = tasks
        self._timeout_s = timeout_s
        self.last = Refresh()

    def begin(self, by: str) -> Refresh:
        """Start one, or join the one under way; returns at once."""
        if self.last.state != "warming":
            self.last = Refresh("warming", now_ms(), None, "", by)
            log.info("refresh asked for", by=by)
            self._tasks.start("refresh", self._run())
        return self.last

    async def _run(self) -> None:
        error = "logs/session-host.log says why."
        try:
            await self._zygotes.refresh(self._timeout_s)
            error = ""
            await self._roster.release_unused()
        except Unavailable as failure:
            error = failure.message
        except OSError as failure:  # no process, no socket
            error = f"No fresh process could be started: {failure.strerror}."
        finally:
            state = self.last = replace(self.last, state="failed" if error else "done", ended_ms=now_ms(), error=error)
            log.info("refresh ended", state=state.state, by=state.by, error=error)
