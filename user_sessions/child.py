"""The inside of a session process, from the first instruction to its exit code.

Order matters and is kept in `enter`: own process group, death with the parent, standard streams, limits, sandbox, and
only then the runtime. Nothing of the user's runs before the sandbox is closed. Started by a fork of the zygote, or as
`python -m user_sessions.child` with its orders on standard input.
"""

import asyncio
import contextlib
import ctypes
import faulthandler
import fcntl
import json
import os
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from proxy.base.errors import ClusterError, Unavailable
from proxy.base.log_file import open_log, trim_log
from user_sessions.confinement import Confinement
from user_sessions.directories import make_private
from user_sessions.limits import join, limit
from user_sessions.listener import bind
from user_sessions.runtime import Runtime, SessionSpec
from user_sessions.runtimes import make_runtime
from user_sessions.sandbox import PR_SET_CHILD_SUBREAPER, PR_SET_NAME, PR_SET_PDEATHSIG, confine, owner_of, prctl
from user_sessions.warming import ImportsPacks

LOG_CHECK_S = 2.0
LOCK_TIMEOUT_S = 10.0
FAILED = 1
BAD_ORDERS = 2


def run(spec: SessionSpec, runtime: Runtime, confinement: Confinement, parent: int | None, ready_fd: int | None) -> int:
    """Be the session: enter, serve, and return the exit code. `parent` is the process to die with."""
    try:
        listener = enter(spec, confinement, parent, ready_fd)
        asyncio.run(_serve(spec, runtime, listener, ready_fd))
        return 0
    except (Exception, asyncio.CancelledError):
        traceback.print_exc()
        return FAILED


def enter(spec: SessionSpec, confinement: Confinement, parent: int | None, ready_fd: int | None) -> socket.socket:
    """Turn a fresh process into a session's: afterwards it can touch nothing that is not this user's.

    Returns the session's socket, bound before the sandbox closed.
    """
    with contextlib.suppress(PermissionError):  # already the leader of a process group of its own
        os.setsid()
    if parent is not None:
        _die_with(parent)
    os.umask(0o077)
    _streams(spec.log, ready_fd)
    _reset_signals()
    _name(spec.user)
    _surroundings(spec)
    if confinement.network:
        _ask_names_by_tcp()
    make_private(spec.socket.parent)
    _claim(spec)
    listener = bind(spec.socket)
    join(spec.session_id, confinement)
    limit(confinement, own_id=owner_of(spec) is not None)
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # what it starts stays below it, so that its end can be theirs
    confine(spec, confinement)
    if parent is not None:
        _die_with(parent)  # again: a change of credentials clears it
    faulthandler.enable()
    return listener


async def _serve(spec: SessionSpec, runtime: Runtime, listener: socket.socket, ready_fd: int | None) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    tasks = asyncio.TaskGroup()
    async with tasks:
        serving = tasks.create_task(runtime.serve(spec, listener, _reporter(ready_fd)), name="serve")
        trimming = tasks.create_task(_keep_log_small(), name="log")
        stopping = tasks.create_task(stopped.wait(), name="stop")
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (serving, trimming, stopping):
            task.cancel()


async def _keep_log_small() -> None:
    while True:
        await asyncio.sleep(LOG_CHECK_S)
        with contextlib.suppress(OSError):  # a full disk: the next look tries again
            trim_log(2)


def _reporter(ready_fd: int | None) -> Callable[[], None]:
    told = False

    def ready() -> None:
        nonlocal told
        if ready_fd is not None and not told:
            os.write(ready_fd, b"1")
            os.close(ready_fd)
        told = True

    return ready


def _die_with(parent: int) -> None:
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel knew of our wish
        os._exit(FAILED)


def _streams(log: Path, ready_fd: int | None) -> None:
    output = open_log(log)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    for source, target in ((null, 0), (output, 1), (output, 2)):
        os.dup2(source, target)
    keep = 2 if ready_fd is None else ready_fd
    os.closerange(3, keep)
    os.closerange(keep + 1, 1 << 20)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _name(user: str) -> None:
    prctl(PR_SET_NAME, f"session {user}".encode()[:15])


def _surroundings(spec: SessionSpec) -> None:
    """Home, working directory and temporary files lie in the user's own directories: others are out of reach."""
    os.environ["HOME"] = str(spec.directories.user)
    os.environ["TMPDIR"] = tempfile.tempdir = str(spec.directories.temp)
    os.chdir(spec.directories.user)


def _ask_names_by_tcp() -> None:
    """The sandbox lets no datagram out. libc reads this once per thread; this one may have read it already."""
    os.environ["RES_OPTIONS"] = "use-vc"
    with contextlib.suppress(AttributeError, OSError):  # another libc
        ctypes.CDLL(None).__res_init()


def _claim(spec: SessionSpec) -> None:
    """Hold the user's lock for life: two processes must never serve one user's directories."""
    folder = spec.socket.parent.parent / "locks"
    make_private(folder)
    fd = os.open(folder / spec.user, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while True:
        try:
            # A process's own lock: unlike flock's it is not shared with what the session itself may fork.
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise Unavailable(
                    "An earlier session of this user has not ended yet. Try again in a moment."
                ) from error
            time.sleep(0.02)


def main() -> int:
    """Read one JSON object of orders from standard input and be that session."""
    try:
        orders = json.load(sys.stdin)
        spec = SessionSpec.from_json(orders["spec"])
        runtime = make_runtime(orders["runtime"], orders["options"])
        confinement = Confinement.from_json(orders["confinement"])
    except (ClusterError, ValueError, KeyError, TypeError) as error:
        sys.stderr.write(f"A session needs its orders on standard input: {error}\n")
        return BAD_ORDERS
    if isinstance(runtime, ImportsPacks):
        try:
            runtime.warm_alone(spec)
        except ClusterError as error:
            sys.stderr.write(f"{error.message}\n")
            return BAD_ORDERS
        confinement = replace(confinement, readable=(*confinement.readable, *runtime.readable()))
    else:
        runtime.warm()
    return run(spec, runtime, confinement, orders.get("parent"), _ready_fd(orders))


def _ready_fd(orders: Mapping[str, Any]) -> int | None:
    """Where to say that the session is ready: a pipe we inherited, or a file that only our starter can reach."""
    path = orders.get("ready_file")
    if path is None:
        return orders.get("ready_fd")
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


if __name__ == "__main__":
    sys.exit(main())
