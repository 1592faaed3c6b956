"""Daemons that outlive the proxy: a record on disk before the deed, so that the next start finds and adopts them.

A record is a JSON file with pid and the kernel's start time of that pid (a pid alone may be somebody else's by now).
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from proxy.base.errors import Unavailable


@dataclass(frozen=True)
class Daemon:
    """A process of ours. `started` is field 22 of /proc/<pid>/stat, in clock ticks since boot."""

    pid: int
    started: int

    def alive(self) -> bool:
        """Whether this very process still runs; a zombie does not."""
        return start_time(self.pid) == self.started

    def stop(self, timeout_s: float) -> bool:
        """SIGTERM, then SIGKILL after `timeout_s`; blocking. True when it is gone."""
        for sig, wait_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 2.0)):
            if not self.alive():
                return True
            try:
                os.kill(self.pid, sig)
            except ProcessLookupError:
                return True
            deadline = time.monotonic() + wait_s
            while time.monotonic() < deadline and not (_reap(self.pid) and not self.alive()):
                time.sleep(0.02)
        return not self.alive()


def spawn(command: Sequence[str], log: Path, env: Mapping[str, str], stdin: int | None = None) -> Daemon:
    """Start `command` in a session of its own (Ctrl-C in our terminal must not reach it), its output appended to
    `log`. Raises Unavailable.

    Through posix_spawn: a Popen object would complain when it is collected before its process ended.
    """
    appending = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    null = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
    actions = [
        null if stdin is None else (os.POSIX_SPAWN_DUP2, stdin, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), appending, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    try:
        pid = os.posix_spawn(command[0], list(command), env, file_actions=actions, setsid=True)
    except OSError as error:
        raise Unavailable(f"No process could be started: {error.strerror}. Its log would be {log}.") from error
    return Daemon(pid, start_time(pid) or 0)


def launch(command: Sequence[str], record: Path, log: Path, env: Mapping[str, str] | None = None) -> Daemon:
    """`spawn`, and record what was started. Raises Unavailable, and OSError when the record cannot be written: then
    nothing is left running."""
    record.unlink(missing_ok=True)
    daemon = spawn(command, log, os.environ if env is None else env)
    try:
        note(daemon, record)
    except OSError:
        os.kill(daemon.pid, signal.SIGKILL)
        os.waitpid(daemon.pid, 0)
        raise
    return daemon


def note(daemon: Daemon, record: Path) -> None:
    """Write a record, whole or not at all. Raises OSError."""
    partial = record.with_suffix(".part")
    partial.write_text(json.dumps(asdict(daemon)))
    partial.replace(record)


def recorded(record: Path) -> Daemon | None:
    """The daemon of a record, if it still runs."""
    daemon = last_recorded(record)
    if daemon is None or daemon.alive():
        return daemon
    _reap(daemon.pid)
    return None


def start_time(pid: int) -> int | None:
    """The kernel's start time of a live process, None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def leader_with(*arguments: str) -> Daemon | None:
    """A process that leads its session and has all these arguments: one whose record was not written in time."""
    wanted = {os.fsencode(argument) for argument in arguments}
    for pid, session in _sessions():
        if pid == session and wanted <= _command(pid):
            return Daemon(pid, start_time(pid) or 0)
    return None


def followers(daemon: Daemon) -> set[int]:
    """Pids of the daemon's session besides itself: what it has started. None once its pid is somebody else's."""
    if start_time(daemon.pid) not in (None, daemon.started):
        return set()
    return {pid for pid, session in _sessions() if session == daemon.pid != pid}


def end_followers(daemon: Daemon) -> None:
    """Kill what a daemon that is gone has left behind in its session."""
    for pid in followers(daemon):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def last_recorded(record: Path) -> Daemon | None:
    """The daemon of a record, whether or not it runs."""
    try:
        data = json.loads(record.read_text())
        return Daemon(int(data["pid"]), int(data["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sessions() -> Iterator[tuple[int, int]]:
    """(pid, session id) of every live process that is ours to see; zombies are not."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if fields[0] not in {"Z", "X"} and folder.stat().st_uid == os.geteuid():
                    yield int(folder.name), int(fields[3])


def _command(pid: int) -> set[bytes]:
    try:
        return set(Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"))
    except OSError:
        return set()


def _reap(pid: int) -> bool:
    """Take its exit status. False while there is none to take: the first thread of a process may be gone long before
    the last one is."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:  # adopted, not our child; or taken already
        return True
