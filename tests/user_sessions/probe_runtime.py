"""A session runtime that does what a test asks from inside the session: read, write, connect, kill, die.

Served like any other runtime (aiohttp on the session's socket, requests with the secret only), so that what a sandbox
refuses is seen from where a user's code would run.
"""

import asyncio
import ctypes
import errno
import hashlib
import hmac
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from proxy.base.errors import Unavailable
from tests.custom_nodes.hostile_pack import attempts
from user_sessions.report import FailedNode
from user_sessions.runtime import SECRET_HEADER, SessionSpec

PTRACE_ATTACH = 16
BREAK = "PYTHON_PROBE_BREAK"
"""Python's own variables are handed on to sessions."""


class ProbeRuntime:
    """Obeys `POST /do {"op": ..., ...}`."""

    name = "probe"

    def warm(self) -> None:
        """Nothing to share beyond the imports above."""

    async def serve(self, spec: SessionSpec, listener: socket.socket, ready: Callable[[], None]) -> None:
        """Serve until cancelled."""

        async def guarded(request: web.Request) -> web.Response:
            given = request.headers.get(SECRET_HEADER, "")
            if not hmac.compare_digest(given.encode(), spec.secret.encode()):
                return web.json_response({"error": "forbidden"}, status=403)
            return web.json_response(await asyncio.to_thread(perform, await request.json()))

        app = web.Application()
        app.add_routes([web.post("/do", guarded)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.SockSite(runner, listener).start()
            ready()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


class DeafRuntime:
    """Never answers and ignores every polite request to end."""

    name = "deaf"

    def warm(self) -> None:
        """Nothing."""

    async def serve(self, spec: SessionSpec, listener: socket.socket, ready: Callable[[], None]) -> None:
        """Hang."""
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                continue


class BrokenRuntime:
    """Ends at once with an error."""

    name = "broken"

    def warm(self) -> None:
        """Nothing."""

    async def serve(self, spec: SessionSpec, listener: socket.socket, ready: Callable[[], None]) -> None:
        """Fail."""
        raise RuntimeError("this runtime is broken on purpose")


class ColdRuntime(ProbeRuntime):
    """Cannot even be warmed."""

    name = "cold"

    def warm(self) -> None:
        """Die like a ComfyUI whose import fails."""
        sys.exit(3)


class FragileRuntime(ProbeRuntime):
    """Has a pack of nodes that failed to load; cannot be warmed while the file that BREAK names is there."""

    name = "fragile"
    failed_nodes = (FailedNode("bad-pack", "No module named 'torch'", "its last words"),)

    def warm(self) -> None:
        """Look at the file."""
        if Path(os.environ[BREAK]).exists():
            raise Unavailable("a broken custom node")


def perform(order: dict[str, Any]) -> dict[str, Any]:
    """Do it; `{"ok": result}` or `{"error": "EACCES"}`."""
    try:
        if order["op"] == "attempt":
            return attempts.attempt(order["name"], order["facts"])
        return {"ok": _ACTIONS[order.pop("op")](**order)}
    except OSError as error:
        return {"error": errno.errorcode.get(error.errno or 0, str(error))}


def _write(path: str, text: str) -> int:
    return Path(path).write_text(text)


def _connect_unix(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
    return True


def _connect_tcp(port: int) -> bool:
    with socket.socket() as client:
        client.connect(("127.0.0.1", port))
    return True


def _kill(pid: int) -> bool:
    os.kill(pid, 0)  # the permission check of every signal, without the harm
    return True


def _ptrace(pid: int) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.ptrace(PTRACE_ATTACH, pid, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "ptrace")
    os.waitpid(pid, 0)
    libc.ptrace(17, pid, 0, 0)
    return True


def _memory(pid: int) -> bool:
    with Path(f"/proc/{pid}/mem").open("rb"):
        return True


def _remembered(begin: str, length: int) -> list[str]:
    """What follows each occurrence of a text in this process's memory, as SHA-256: whoever asks about a secret sends
    its beginning only, or it would be found where the question lies."""
    wanted, found = begin.encode(), set()
    with Path("/proc/self/maps").open() as maps, Path("/proc/self/mem").open("rb", buffering=0) as memory:
        for line in maps.read().splitlines():
            first, last = (int(edge, 16) for edge in line.split()[0].split("-"))
            if " rw" not in line or last - first > 2**30:
                continue
            try:
                memory.seek(first)
                content = memory.read(last - first)
            except (OSError, OverflowError):  # such as the kernel's own pages
                continue
            at = content.find(wanted)
            while at >= 0:
                found.add(hashlib.sha256(content[at + len(wanted) :][:length]).hexdigest())
                at = content.find(wanted, at + 1)
    return sorted(found)


def _limits(pid: int) -> bool:
    resource.prlimit(pid, resource.RLIMIT_NOFILE)
    return True


def _bloat(mb: int) -> int:
    try:
        return len(bytearray(mb * 1024 * 1024))
    except MemoryError as error:
        raise OSError(errno.ENOMEM, "out of memory") from error


def _status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _daemon() -> int:
    """Leave a process behind as daemons do: a session of its own, no parent, deaf to polite requests. Its id."""
    read, write = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        else:
            os.write(write, str(pid).encode())
        os._exit(0)
    os.wait()
    return int(os.read(read, 20))


def _fork_and_die() -> None:
    """Leave a grandchild behind that would outlive its session."""
    pid = os.fork()
    if pid == 0:
        time.sleep(600)
        os._exit(0)
    sys.stderr.write(f"grandchild {pid}\n")
    os._exit(3)


_ACTIONS: dict[str, Callable[..., Any]] = {
    "pid": os.getpid,
    "read": lambda path: Path(path).read_bytes()[:64].decode(errors="replace"),
    "list": lambda path: sorted(os.listdir(path)),  # noqa: PTH208 - names, not paths
    "write": _write,
    "append": lambda path, mb: Path(path).write_bytes(bytes(mb * 1024 * 1024)),
    "rename": lambda source, target: Path(source).rename(target) is not None,
    "link": lambda source, target: Path(target).hardlink_to(source),
    "symlink": lambda path, target: Path(path).symlink_to(target),
    "chmod": lambda path, mode: Path(path).chmod(mode),
    "connect_unix": _connect_unix,
    "connect_tcp": _connect_tcp,
    "look_up": lambda name: sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, 80)}),
    "kill": _kill,
    "ptrace": _ptrace,
    "memory": _memory,
    "remembered": _remembered,
    "limits": _limits,
    "bloat": _bloat,
    "status": _status,
    "environment": lambda: dict(os.environ),
    "descriptors": lambda: [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in (0, 1, 2)],
    "run": lambda command: subprocess.run(command, capture_output=True, check=False).returncode,
    "shout": lambda count: sys.stderr.write("x" * 99 * count + "\n") and sys.stderr.flush(),
    "daemon": _daemon,
    "fork_and_die": _fork_and_die,
    "die": os._exit,
}
