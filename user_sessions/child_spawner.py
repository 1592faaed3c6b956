"""Sessions as plain child processes, `python -m user_sessions.child`: the fallback where no zygote can be forked from.

Slower (every session imports everything) but the same verbs, the same sandbox and the same answers. A record per
session in the run directory, outside of what sessions may write, lets a restarted proxy find them again.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from proxy.base.clock import monotonic_s, now_ms
from proxy.base.errors import Conflict, Unavailable
from proxy.base.log_file import tail
from proxy.base.logs import events
from proxy.base.processes import Daemon, spawn
from user_sessions.cold import IMPORTS_ITSELF
from user_sessions.confinement import Confinement
from user_sessions.directories import failures, make_private
from user_sessions.memory import Gauge
from user_sessions.report import Refresh, Report
from user_sessions.runtime import SessionSpec
from user_sessions.runtimes import program
from user_sessions.spawner import Poll
from user_sessions.zygote_process import session_environment

PAUSE_S = 0.05
KILL_TIMEOUT_S = 5.0
EXITS_KEPT = 500

log = events(__name__)


@dataclass(frozen=True)
class Record:
    """What is on disk about one child. A pid alone may be somebody else's by now, hence `started`."""

    session_id: str
    user: str
    pid: int
    started: int
    socket: str
    refresh: int = 0
    """How many refreshes had been asked for when it started."""

    def alive(self) -> bool:
        """Whether this very process runs."""
        return Daemon(self.pid, self.started).alive()


class ChildSpawner:
    """A `Spawner` without a session host."""

    def __init__(
        self,
        run: Path,
        *,
        runtime: str,
        options: Mapping[str, str],
        confinement: Confinement,
        start_timeout_s: float,
        stop_timeout_s: float,
    ) -> None:
        self._records = run / "children"
        self._marker = self._records / "refreshed"
        self._gauge = Gauge()
        self._orders = {"runtime": runtime, "options": dict(options), "confinement": confinement.to_json()}
        self._program = program(runtime, options)
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._exits: dict[str, int | None] = {}
        self._starting: dict[str, asyncio.Lock] = {}
        make_private(run)
        make_private(self._records)

    async def start(self, spec: SessionSpec) -> Poll:
        """See Spawner."""
        async with self._starting.setdefault(spec.user, asyncio.Lock()):
            found = await self.poll(spec.session_id)
            if found.state == "exited":
                raise Unavailable("The session ended while it started.", tail(spec.log))
            if found.state == "unknown":
                self._refuse_second(spec)
                self._launch(spec)
            return await self._answering(spec)

    async def poll(self, session_id: str) -> Poll:
        """See Spawner."""
        record = self._read(self._record_path(session_id))
        if record is None:
            if session_id in self._exits:
                code = self._exits[session_id]
                return Poll(session_id, "exited", code=code, error=f"The session ended with code {code}.")
            return Poll(session_id, "unknown")
        if record.alive():
            outdated = record.refresh < self._refreshes()[0]
            return Poll(session_id, "running", ready=self._is_ready(session_id), pid=record.pid, outdated=outdated)
        code = self._forget(record)
        return Poll(session_id, "exited", pid=record.pid, code=code, error=f"The session ended with code {code}.")

    async def stop(self, session_id: str) -> None:
        """See Spawner."""
        record = self._read(self._record_path(session_id))
        if record is None:
            return
        for number, wait_s in ((signal.SIGTERM, self._stop_timeout_s), (signal.SIGKILL, KILL_TIMEOUT_S)):
            _signal(record, number)
            if await _gone(record, wait_s):
                self._forget(record)
                return
        raise Unavailable("The session did not end even when killed. `dmesg` may say why.")

    async def listing(self, *, memory: bool = False) -> list[Poll]:
        """See Spawner."""
        with failures(self._records):
            names = sorted(self._records.glob("*.json"))
        polls = [poll for path in names if (poll := await self.poll(path.stem)).state == "running"]
        if not memory:
            return polls
        pids = {poll.session_id: poll.pid for poll in polls if poll.pid}
        figures = await asyncio.to_thread(self._gauge.look, pids)
        return [replace(poll, memory=figures.get(poll.session_id)) for poll in polls]

    async def refresh(self, by: str) -> Refresh:
        """See Spawner. Every start is a fresh one here: nothing to prepare, only to be remembered."""
        count, _ = self._refreshes()
        done = Refresh("done", now_ms(), now_ms(), "", by)
        with failures(self._marker):
            partial = self._marker.with_suffix(".part")
            partial.write_text(json.dumps({"count": count + 1, "refresh": asdict(done)}))
            partial.replace(self._marker)
        log.info("refresh asked for", by=by)
        return done

    async def report(self) -> Report:
        """See Spawner."""
        return Report(self._refreshes()[1])

    async def close(self) -> None:
        """See Spawner."""

    def _launch(self, spec: SessionSpec) -> None:
        read, write = os.pipe2(os.O_CLOEXEC)
        try:
            ready = {"spec": spec.to_json(), "ready_file": str(self._ready_path(spec.session_id))}
            orders = json.dumps(self._orders | ready).encode()
            os.set_blocking(write, False)
            if os.write(write, orders) != len(orders):  # the pipe holds 64 KiB, orders a few
                raise Unavailable("The session's paths are too long to hand over.")
            command = [*(self._program or (sys.executable, "-m")), "user_sessions.child"]
            environment = session_environment(os.environ, foreign=bool(self._program))
            child = spawn(command, spec.log, environment, stdin=read)
        finally:
            os.close(read)
            os.close(write)
        refreshes = self._refreshes()[0]
        record = Record(spec.session_id, spec.user, child.pid, child.started, str(spec.socket), refreshes)
        partial = self._record_path(spec.session_id).with_suffix(".part")
        with failures(partial):
            partial.write_text(json.dumps(record.__dict__))
            partial.replace(self._record_path(spec.session_id))

    async def _answering(self, spec: SessionSpec) -> Poll:
        deadline = monotonic_s() + self._start_timeout_s
        while monotonic_s() < deadline:
            poll = await self.poll(spec.session_id)
            if poll.state != "running":
                raise Unavailable(poll.error or "The session ended while it started.", tail(spec.log))
            if poll.ready:
                return poll
            await asyncio.sleep(PAUSE_S)
        await self.stop(spec.session_id)
        late = f"The session did not answer within {self._start_timeout_s:g} s. {IMPORTS_ITSELF}"
        raise Unavailable(late, tail(spec.log))

    def _refuse_second(self, spec: SessionSpec) -> None:
        for path in self._records.glob("*.json"):
            record = self._read(path)
            if record is not None and record.user == spec.user and record.alive():
                raise Conflict(f"This user has a session already: {record.session_id}. Stop it first.")

    def _forget(self, record: Record) -> int | None:
        code = None
        with contextlib.suppress(ChildProcessError):  # started by an earlier proxy: not ours to wait for
            if os.waitid(os.P_PID, record.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                # While it is a zombie its id cannot belong to anyone else: the moment to end what it left behind.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(record.pid, signal.SIGKILL)
                code = os.waitstatus_to_exitcode(os.waitpid(record.pid, 0)[1])
        self._record_path(record.session_id).unlink(missing_ok=True)
        self._ready_path(record.session_id).unlink(missing_ok=True)
        self._exits[record.session_id] = code
        while len(self._exits) > EXITS_KEPT:
            del self._exits[next(iter(self._exits))]
        return code

    def _refreshes(self) -> tuple[int, Refresh]:
        """How many there were, and the latest."""
        try:
            stored = json.loads(self._marker.read_text())
            return int(stored["count"]), Refresh.from_json(stored["refresh"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0, Refresh()

    def _record_path(self, session_id: str) -> Path:
        if not session_id or "/" in session_id or "\0" in session_id or session_id.startswith("."):
            raise Unavailable(f"{session_id!r} is no session's id.")
        return self._records / f"{session_id}.json"

    def _ready_path(self, session_id: str) -> Path:
        return self._record_path(session_id).with_suffix(".ready")

    def _is_ready(self, session_id: str) -> bool:
        """Whether the session said so. That its socket accepts says nothing: it listens before anybody answers."""
        try:
            return self._ready_path(session_id).stat().st_size > 0
        except OSError:
            return False

    @staticmethod
    def _read(path: Path) -> Record | None:
        try:
            return Record(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None


def _signal(record: Record, number: signal.Signals) -> None:
    """Through a pidfd, checked after it was opened: the id cannot be another's in between."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(record.pid)
        try:
            if record.alive():
                signal.pidfd_send_signal(pidfd, number)
        finally:
            os.close(pidfd)


async def _gone(record: Record, timeout_s: float) -> bool:
    """Wait until it ended; False when it has not by then."""
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return True
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, ended.set)
    try:
        if record.alive():
            async with asyncio.timeout(timeout_s):
                await ended.wait()
        return True
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
