"""The session host's side of its zygotes: start one, keep one warm, retire the old one, hand out forks.

Owns the zygote processes and their sockets. What becomes of the sessions is told to `Listener` and kept elsewhere.
"""

import asyncio
import contextlib
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from proxy.base.errors import Unavailable
from proxy.base.logs import events
from proxy.base.tasks import Tasks
from user_sessions.report import FailedNode, failed_nodes
from user_sessions.runtime import SessionSpec
from user_sessions.zygote import MESSAGE_BYTES

BACKOFF_S = 0.2
BACKOFF_LIMIT_S = 10.0
END_TIMEOUT_S = 5.0

log = events(__name__)


ENVIRONMENT = {"PATH", "LANG", "TZ", "HOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"}
ENVIRONMENT_PREFIXES = ("LC_", "PYTHON")


def session_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What sessions may inherit: an allow-list, since passwords and cloud keys live in the rest."""
    return {
        name: value
        for name, value in environment.items()
        if name in ENVIRONMENT or name.startswith(ENVIRONMENT_PREFIXES)
    }


class Listener(Protocol):
    """Who wants to know what becomes of forked sessions."""

    def told(self, zygote: "ZygoteProcess", message: Mapping[str, Any]) -> None:
        """A message of that zygote about one session."""

    def zygote_gone(self, zygote: "ZygoteProcess") -> None:
        """It died: no further message will come, and the kernel is ending its sessions."""


@dataclass(frozen=True)
class Orders:
    """What a zygote is started with; `to_json` of the confinement and the runtime's options travel in it."""

    runtime: str
    options: Mapping[str, str]
    confinement: Mapping[str, Any]
    log_level: str = "info"
    log_format: str = "text"

    def text(self) -> str:
        """One argument of its command line; holds no secret."""
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__})


class ZygoteProcess:
    """One zygote. Must be made in the host's main thread: the kernel ends it with the thread that started it."""

    def __init__(self, orders: Orders, listener: Listener) -> None:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.setblocking(False)
        command = [sys.executable, "-m", "user_sessions.zygote", str(theirs.fileno()), str(os.getpid()), orders.text()]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), env=session_environment(os.environ)
        )
        theirs.close()
        self._socket = mine
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(mine, self._readable)
        self.settled = asyncio.Event()
        """Set once it is warm, broken or gone."""
        self.warm = False
        self.was_warm = False
        self.took_ms = 0
        self.failed_nodes: tuple[FailedNode, ...] = ()
        self.error = ""
        self.ended = asyncio.Event()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def fork(self, spec: SessionSpec) -> None:
        """Order one session; the answers come through the listener. Raises Unavailable when it is gone."""
        message = json.dumps({"op": "fork", "session_id": spec.session_id, "spec": spec.to_json()}).encode()
        if len(message) > MESSAGE_BYTES:
            raise Unavailable("The session's paths are too long to hand over.")
        try:
            await self._loop.sock_sendall(self._socket, message)
        except OSError as error:
            raise Unavailable("The process that forks sessions just ended. Try again in a moment.") from error

    async def end(self) -> None:
        """Close its socket, upon which it leaves; kill it when it does not, or is busy warming up."""
        if not self.warm:
            self._process.kill()
        self._close()
        for _ in range(int(END_TIMEOUT_S / 0.02)):
            if self._process.poll() is not None:
                return
            await asyncio.sleep(0.02)
        self._process.kill()
        self._process.wait()

    def _readable(self) -> None:
        while True:
            try:
                data = self._socket.recv(MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._died()
                return
            self._take(json.loads(data))

    def _take(self, message: Mapping[str, Any]) -> None:
        if message["op"] == "warm":
            self.warm = self.was_warm = True
            self.took_ms = int(message["took_ms"])
            self.failed_nodes = failed_nodes(message.get("failed_nodes"))
            log.info("zygote warm", pid=self.pid, took_ms=self.took_ms, threads=message["threads"])
            self.settled.set()
        elif message["op"] == "broken":
            self.error = str(message["error"])
        else:
            self._listener.told(self, message)

    def _died(self) -> None:
        self._close()
        self.error = self.error or "The process that forks sessions ended. The session host's log says why."
        log.error("zygote ended", pid=self.pid, error=self.error)
        self._listener.zygote_gone(self)

    def _close(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            self.warm = False
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self.settled.set()


class Zygotes:
    """Always one zygote to fork from, and the retired ones that still have sessions."""

    def __init__(self, orders: Orders, listener: Listener, tasks: Tasks) -> None:
        self._orders = orders
        self._listener = listener
        self._tasks = tasks
        self._closing = False
        self.current: ZygoteProcess | None = None
        self.retired: list[ZygoteProcess] = []

    def start(self) -> None:
        """Begin to keep one warm."""
        self._put(BACKOFF_S)

    async def warm(self, timeout_s: float) -> ZygoteProcess:
        """The one to fork from, once it is warm. Raises Unavailable."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    zygote = self.current
                    if zygote is not None:
                        await zygote.settled.wait()
                        if zygote.warm:
                            return zygote
                        if not zygote.was_warm and self.current is zygote:  # else a replacement is on its way
                            raise Unavailable(f"Sessions cannot be started: {zygote.error}")
                    await asyncio.sleep(0.02)
        raise Unavailable(f"The session host was not ready within {timeout_s:g} s. Try again in a moment.")

    async def refresh(self, timeout_s: float) -> ZygoteProcess:
        """Warm a new one beside the current one, then fork from the new one. Raises Unavailable; the old one stays."""
        fresh = ZygoteProcess(self._orders, self._listener)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await fresh.settled.wait()
        if not fresh.warm:
            await fresh.end()
            raise Unavailable(f"No fresh session process could be prepared: {fresh.error or 'it took too long'}")
        if self.current is not None and not self.current.ended.is_set():
            self.retired.append(self.current)
        self.current = fresh
        self._watch(fresh, BACKOFF_S)
        return fresh

    async def release(self, zygote: ZygoteProcess) -> None:
        """End a retired zygote; called when its last session is gone."""
        if zygote in self.retired:
            self.retired.remove(zygote)
            await zygote.end()

    async def end(self) -> None:
        """End all of them."""
        self._closing = True
        every = [*self.retired, *([self.current] if self.current else [])]
        self.current, self.retired = None, []
        for zygote in every:
            await zygote.end()

    def _put(self, wait_s: float) -> ZygoteProcess:
        zygote = self.current = ZygoteProcess(self._orders, self._listener)
        self._watch(zygote, wait_s)
        return zygote

    def _watch(self, zygote: ZygoteProcess, wait_s: float) -> None:
        self._tasks.start(f"keep zygote {zygote.pid}", self._keep(zygote, wait_s))

    async def _keep(self, zygote: ZygoteProcess, wait_s: float) -> None:
        """Replace it when it ends and is still the one in use; wait longer each time one never got warm."""
        await zygote.ended.wait()
        await zygote.end()
        if zygote in self.retired:
            self.retired.remove(zygote)
        if self.current is zygote and not self._closing:
            await asyncio.sleep(wait_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, not a secret
            if self.current is zygote and not self._closing:
                self._put(BACKOFF_S if zygote.was_warm else min(wait_s * 2, BACKOFF_LIMIT_S))
