"""The session host's book: which session is which process, and how it ended.

Every change comes from a zygote's message or from the kernel (pidfd); nothing is guessed from a bare process id. Keeps
every running session, and the last `EXITS_KEPT` ended ones (older ones are forgotten: the database has their story).
"""

import asyncio
import contextlib
import os
import select
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.base.clock import monotonic_s, now_ms
from proxy.base.errors import Conflict, Unavailable, Warming
from proxy.base.log_file import tail
from proxy.base.logs import events
from proxy.base.processes import start_time
from proxy.base.tasks import Tasks
from user_sessions.cold import IMPORTS_ITSELF
from user_sessions.runtime import SessionSpec
from user_sessions.zygote_process import ZygoteProcess
from user_sessions.zygotes import Zygotes

EXITS_KEPT = 500
KILL_TIMEOUT_S = 5.0
TELL_TIMEOUT_S = 2.0
FORK_ATTEMPTS = 3

log = events(__name__)


@dataclass
class Entry:
    """One session of this host."""

    session_id: str
    user: str
    log: Path
    zygote: ZygoteProcess | None = None
    pid: int | None = None
    pidfd: int | None = None
    ready: bool = False
    stopping: bool = False
    exited: bool = False
    code: int | None = None
    exited_ms: int | None = None
    error: str = ""
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once it answers or is gone."""
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    def view(self, current: ZygoteProcess | None) -> dict[str, Any]:
        """As the control API shows it; no secret, no path. Outdated: forked from another zygote than `current`."""
        return {
            "session_id": self.session_id,
            "user": self.user,
            "state": "exited" if self.exited else "running",
            "ready": self.ready and not self.exited,
            "pid": self.pid,
            "code": self.code,
            "exited_ms": self.exited_ms,
            "error": self.error,
            "outdated": self.zygote is not None and self.zygote is not current,
        }


class Roster:
    """Start, look up and stop sessions; listens to the zygotes."""

    def __init__(self, tasks: Tasks, start_timeout_s: float, stop_timeout_s: float) -> None:
        self._tasks = tasks
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._entries: dict[str, Entry] = {}
        self._loop = asyncio.get_running_loop()
        self.zygotes: Zygotes | None = None
        self.closing = False

    async def look(self, session_id: str) -> Entry | None:
        """The entry of that id, running or remembered. The kernel knows of an end before the zygote has told its
        code: whoever asks in between gets the answer that follows, not a `running` that is no longer true."""
        entry = self._entries.get(session_id)
        if entry is not None and entry.pidfd is not None and _ended(entry.pidfd):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_TIMEOUT_S):
                    await entry.gone.wait()
        return entry

    def running(self) -> list[Entry]:
        """All that have not ended, in the order of their start."""
        return [entry for entry in self._entries.values() if not entry.exited]

    def exits(self) -> int:
        """How many ended ones are remembered."""
        return sum(entry.exited for entry in self._entries.values())

    async def start(self, spec: SessionSpec) -> Entry:
        """Fork a session and wait until it answers. The same id again joins or returns the first. Raises
        Conflict when the user has another one, Unavailable when it did not come up (it is gone then)."""
        entry = self._entries.get(spec.session_id)
        if entry is None:
            entry = self._enter(spec)
            await self._fork(entry, spec)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._start_timeout_s):
                await entry.settled.wait()
        if entry.exited:
            raise Unavailable(entry.error or "The session ended while it started.", tail(entry.log))
        if not entry.ready:
            await self.stop(spec.session_id)
            late = f"The session did not answer within {self._start_timeout_s:g} s."
            if self.zygotes is not None and self.zygotes.unforkable:
                late += f" {IMPORTS_ITSELF}"
            raise Unavailable(late, tail(entry.log))
        return entry

    async def stop(self, session_id: str) -> Entry | None:
        """End a session: asked first, killed when it lingers. Returns once it is gone. Raises Unavailable if not."""
        entry = self._entries.get(session_id)
        if entry is None or entry.exited:
            return entry
        entry.stopping = True
        if entry.zygote is None:  # it waits for one to be warm, which may take minutes
            self._ended(entry, None, "The session was stopped before it began.")
            return entry
        for number, wait_s in ((signal.SIGTERM, self._stop_timeout_s), (signal.SIGKILL, KILL_TIMEOUT_S)):
            self._signal(entry, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await entry.gone.wait()
                    return entry
        raise Unavailable("The session did not end even when killed. The host's log and `dmesg` may say why.")

    async def stop_all(self) -> None:
        """End every session at the same time."""
        self.closing = True
        async with asyncio.TaskGroup() as group:
            for entry in self.running():
                group.create_task(self._stop_quietly(entry.session_id))

    async def release_unused(self) -> None:
        """End the retired zygotes that have no session any more, or never had one."""
        assert self.zygotes is not None
        in_use = {id(entry.zygote) for entry in self.running()}
        for zygote in [zygote for zygote in self.zygotes.retired if id(zygote) not in in_use]:
            await self.zygotes.release(zygote)

    def told(self, zygote: ZygoteProcess, message: Mapping[str, Any]) -> None:
        """A zygote's message."""
        entry = self._entries.get(str(message["session_id"]))
        if entry is None or entry.exited or entry.zygote is not zygote:
            return
        match message["op"]:
            case "forked":
                self._forked(entry, int(message["pid"]), message["started"])
            case "ready":
                entry.ready = True
                entry.settled.set()
            case "failed":
                self._ended(entry, None, str(message["error"]))
            case "exit":
                self._ended(entry, int(message["code"]), "")

    def zygote_gone(self, zygote: ZygoteProcess) -> None:
        """The kernel is killing its sessions; each one's end is seen through its pidfd, not assumed."""
        for entry in self.running():
            if entry.zygote is not zygote:
                continue
            if entry.pidfd is None:
                self._ended(entry, None, "The process that forks sessions ended during the start.")
            else:
                self._loop.add_reader(entry.pidfd, self._ended, entry, None, "The process that forked it ended.")

    def _enter(self, spec: SessionSpec) -> Entry:
        if self.closing:
            raise Unavailable("The session host is shutting down.")
        other = next((entry for entry in self.running() if entry.user == spec.user), None)
        if other is not None:
            raise Conflict(f"This user has a session already: {other.session_id}. Stop it first.")
        entry = self._entries[spec.session_id] = Entry(spec.session_id, spec.user, spec.log)
        return entry

    async def _fork(self, entry: Entry, spec: SessionSpec) -> None:
        assert self.zygotes is not None
        error = ""
        deadline = monotonic_s() + self._start_timeout_s
        for _ in range(FORK_ATTEMPTS):
            try:
                zygote = await self.zygotes.warm(deadline - monotonic_s())
                if entry.exited:  # nobody wants it any more
                    return
                entry.zygote = zygote
                await zygote.fork(spec)
                return
            except Warming as failure:  # its caller should ask again
                if entry.exited:
                    return
                self._ended(entry, None, failure.message)
                raise
            except Unavailable as failure:
                error = failure.message
        self._ended(entry, None, error)

    def _forked(self, entry: Entry, pid: int, started: int | None) -> None:
        entry.pid = pid
        with contextlib.suppress(ProcessLookupError):  # gone already: its `exit` follows
            pidfd = os.pidfd_open(pid)
            if started is not None and start_time(pid) == started:
                entry.pidfd = pidfd
            else:
                os.close(pidfd)
        if entry.stopping:
            self._signal(entry, signal.SIGTERM)
        log.info("session started", session=entry.session_id, user=entry.user, pid=pid)

    def _ended(self, entry: Entry, code: int | None, error: str) -> None:
        if entry.exited:
            return
        entry.exited, entry.code, entry.exited_ms = True, code, now_ms()
        entry.error = error or (f"The session ended with code {code}." if code else "")
        if entry.pidfd is not None:
            self._loop.remove_reader(entry.pidfd)
            os.close(entry.pidfd)
            entry.pidfd = None
        entry.settled.set()
        entry.gone.set()
        log.info("session ended", session=entry.session_id, user=entry.user, pid=entry.pid, code=code, error=error)
        self._forget()
        entry.zygote = None
        if self.zygotes is not None and self.zygotes.retired:
            self._tasks.start("release zygotes", self.release_unused())

    def _forget(self) -> None:
        ended = [session_id for session_id, entry in self._entries.items() if entry.exited]
        for session_id in ended[: max(0, len(ended) - EXITS_KEPT)]:
            del self._entries[session_id]

    def _signal(self, entry: Entry, number: signal.Signals) -> None:
        if entry.pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(entry.pidfd, number)

    async def _stop_quietly(self, session_id: str) -> None:
        try:
            await self.stop(session_id)
        except Unavailable as error:
            log.error("session would not end", session=session_id, error=error.message)


def _ended(pidfd: int) -> bool:
    poll = select.poll()  # select.select() would refuse descriptors above 1023
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
