"""The zygote: one single-threaded process that imports everything once and forks sessions from there.

Speaks JSON messages, one per datagram, with the session host over an inherited SOCK_SEQPACKET socket (the kernel keeps
the message bounds). In: `{"op": "fork"}` with the session's spec as an open file, which the fork alone reads, or every
later session would find it in the memory it inherits. Out: `importing`, `failed_node`, one of `warm`, `broken`,
`unforkable`, and then `forked`, `ready`, `failed`, `exit`. It waits for its children through pidfds, so it needs no
threads and no signal handlers. When the host goes, it goes, and the kernel takes its sessions with it. A cold one
imports nothing: each of its sessions is a fresh program that does.
"""

import contextlib
import gc
import json
import mimetypes
import os
import selectors
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from proxy.base.errors import BadInput, ClusterError
from proxy.base.logs import configure, events
from proxy.base.processes import start_time
from user_sessions import cgroup, child
from user_sessions.cold import Cold
from user_sessions.confinement import Confinement
from user_sessions.orphans import children, end_orphans
from user_sessions.runtime import Runtime, SessionSpec
from user_sessions.runtimes import make_runtime
from user_sessions.sandbox import PR_SET_CHILD_SUBREAPER, PR_SET_NAME, PR_SET_PDEATHSIG, prctl, python_paths
from user_sessions.warming import ImportsPacks, Unforkable

MESSAGE_BYTES = 65_536

log = events(__name__)


@dataclass
class Child:
    """A session this zygote forked and has not reaped yet."""

    session_id: str
    pid: int
    pidfd: int
    ready_fd: int | None


class Zygote:
    """Fork on demand, report what becomes of the children."""

    def __init__(
        self, host: socket.socket, runtime: Runtime, confinement: Confinement, cold: Cold | None = None
    ) -> None:
        self.host = host
        self.runtime = runtime
        self.confinement = confinement
        self.cold = cold
        self.helpers: set[int] = set()
        self.selector = selectors.DefaultSelector()
        self.selector.register(host, selectors.EVENT_READ)

    def run(self) -> None:
        """Serve until the host closes its end."""
        self.helpers = set(children())  # started by custom nodes for all sessions
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        while True:
            for key, _ in self.selector.select():
                if key.data is None:
                    message, files, _, _ = socket.recv_fds(self.host, MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
                    if not message:
                        return
                    self._order(json.loads(message), files)
                elif key.fd == key.data.pidfd:
                    self._reap(key.data)
                elif key.data.ready_fd is not None:
                    self._ready(key.data)

    def _order(self, order: dict[str, Any], files: list[int]) -> None:
        session_id = str(order.get("session_id"))
        if not files:  # the system had no descriptor left for it
            self._tell("failed", session_id, error="The system refused to hand over the session's orders.")
            return
        try:
            self._fork(session_id, files[0])
        finally:
            os.close(files[0])

    def _fork(self, session_id: str, orders: int) -> None:
        mine, theirs = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(mine, False)  # what the session forked may hold the other end beyond its death
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            os.close(mine)
            os.close(theirs)
            self._tell("failed", session_id, error=f"The system refused a new process: {error.strerror}.")
            return
        if pid == 0:
            self._be_session(orders, parent, theirs)
        os.close(theirs)
        entry = Child(session_id, pid, os.pidfd_open(pid), mine)
        self.selector.register(entry.pidfd, selectors.EVENT_READ, entry)
        self.selector.register(mine, selectors.EVENT_READ, entry)
        self._tell("forked", session_id, pid=pid, started=start_time(pid))

    def _be_session(self, orders: int, parent: int, ready_fd: int) -> None:
        """Never returns: what lies on this stack is the zygote's, and closing it here would close other things."""
        code = child.FAILED
        try:
            spec = _read_spec(orders)
            if self.cold is not None:
                self.cold.become(spec, parent, ready_fd)
            code = child.run(spec, self.runtime, self.confinement, parent, ready_fd)
        except BadInput as error:
            log.error("a session's orders cannot be read", error=error.message)
            code = child.BAD_ORDERS
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _ready(self, entry: Child) -> None:
        assert entry.ready_fd is not None
        told = b""
        with contextlib.suppress(BlockingIOError):
            told = os.read(entry.ready_fd, 1)
        self._close_ready(entry)
        if told:
            self._tell("ready", entry.session_id, pid=entry.pid)

    def _reap(self, entry: Child) -> None:
        if entry.ready_fd is not None:
            self._ready(entry)  # told and gone within one turn: the order of the two must hold
        # While it is a zombie its id cannot belong to anyone else: the moment to end what it started itself.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(entry.pid, signal.SIGKILL)
        _, status = os.waitpid(entry.pid, 0)
        self.selector.unregister(entry.pidfd)
        os.close(entry.pidfd)
        self._end_rest(entry)
        self._tell("exit", entry.session_id, pid=entry.pid, code=os.waitstatus_to_exitcode(status))

    def _end_rest(self, entry: Child) -> None:
        """What it started and let go of: other sessions adopt their own orphans, so these are nobody else's."""
        if self.confinement.cgroup:
            cgroup.end(Path(self.confinement.cgroup), entry.session_id)
        known = {key.data.pid for key in self.selector.get_map().values() if key.data is not None} | self.helpers
        ended = end_orphans(known)
        if ended:
            log.warning("a session left processes behind: ended", session=entry.session_id, processes=ended)

    def _close_ready(self, entry: Child) -> None:
        assert entry.ready_fd is not None
        self.selector.unregister(entry.ready_fd)
        os.close(entry.ready_fd)
        entry.ready_fd = None

    def _tell(self, op: str, session_id: str, **fields: object) -> None:
        _send(self.host, op, session_id=session_id, **fields)


def main(arguments: list[str]) -> int:
    """`python -m user_sessions.zygote FD HOST_PID ORDERS`, started by the session host only."""
    fd, host_pid, orders = int(arguments[0]), int(arguments[1]), json.loads(arguments[2])
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != host_pid:
        return 1
    prctl(PR_SET_NAME, b"session zygote")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the host's to handle, which then ends us
    configure(orders["log_level"], orders["log_format"])
    host = socket.socket(fileno=fd)
    confinement = Confinement.from_json(orders["confinement"])
    try:
        runtime = make_runtime(orders["runtime"], orders["options"])
        if orders["cold"]:
            cold = Cold(orders["program"], orders["runtime"], orders["options"], confinement)
            _send(host, "warm", took_ms=0, threads=1)
            Zygote(host, runtime, confinement, cold).run()
            return 0
        confinement = _warm(host, runtime, confinement)
    except Unforkable as error:
        _send(host, "unforkable", error=error.message)
        return child.BAD_ORDERS
    except ClusterError as error:
        _send(host, "broken", error=error.message)
        return child.BAD_ORDERS
    Zygote(host, runtime, confinement).run()
    return 0


def _warm(host: socket.socket, runtime: Runtime, confinement: Confinement) -> Confinement:
    """Warm and freeze; returns the confinement with what the runtime has found its sessions to need."""
    began = time.monotonic()
    mimetypes.init()  # reads files that a session's sandbox does not show
    if isinstance(runtime, ImportsPacks):
        runtime.warm_telling(lambda pack: _send(host, "importing", pack=pack))
        confinement = replace(confinement, readable=(*confinement.readable, *runtime.readable()))
    else:
        runtime.warm()
    for node in getattr(runtime, "failed_nodes", ()):  # only runtimes that load custom nodes know of any
        _send(host, "failed_node", **asdict(node))
    python_paths()  # remembered, so that no session has to look them up again
    threads = _threads()
    if threads > 1 and not isinstance(runtime, ImportsPacks):  # torch has some, and packs were told of one by one
        log.warning("runtime left threads running before the fork", threads=threads)
    sys.stdout.flush()
    sys.stderr.flush()
    gc.collect()
    gc.freeze()
    _send(host, "warm", took_ms=int((time.monotonic() - began) * 1000), threads=threads)
    return confinement


def _read_spec(orders: int) -> SessionSpec:
    with os.fdopen(orders, "rb", closefd=False) as file:
        text = file.read()
    try:
        return SessionSpec.from_json(json.loads(text))
    except ValueError as error:
        raise BadInput("The orders are no JSON.") from error


def _send(host: socket.socket, op: str, *, session_id: str = "", **fields: object) -> None:
    host.send(json.dumps({"op": op, "session_id": session_id, **fields}).encode())


def _threads() -> int:
    """Kernel threads, native ones included, which `threading` does not know of."""
    try:
        return len(list(Path("/proc/self/task").iterdir()))
    except OSError:
        return threading.active_count()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
