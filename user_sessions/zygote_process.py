"""One zygote as the session host sees it: its process, its socket, what it has said so far.

What becomes of its sessions is told to `Listener` and kept elsewhere; `zygotes.py` decides which zygote is in use.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from proxy.base.errors import Unavailable
from proxy.base.logs import events
from user_sessions.report import FailedNode, failed_nodes
from user_sessions.runtime import SessionSpec
from user_sessions.zygote import MESSAGE_BYTES

END_TIMEOUT_S = 5.0
SEND_TIMEOUT_S = 10.0

log = events(__name__)


ENVIRONMENT = {"PATH", "LANG", "TZ", "HOME", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"}
ENVIRONMENT_PREFIXES = ("LC_", "PYTHON")
OF_OUR_PYTHON = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONWARNINGS", "PYTHONEXECUTABLE"}


def session_environment(environment: Mapping[str, str], *, foreign: bool = False) -> dict[str, str]:
    """What sessions may inherit: an allow-list, since passwords and cloud keys live in the rest. A `foreign` Python
    gets nothing that leads to our libraries."""
    return {
        name: value
        for name, value in environment.items()
        if (name in ENVIRONMENT or name.startswith(ENVIRONMENT_PREFIXES)) and not (foreign and name in OF_OUR_PYTHON)
    }


class Listener(Protocol):
    """Who wants to know what becomes of forked sessions."""

    def told(self, zygote: "ZygoteProcess", message: Mapping[str, Any]) -> None:
        """A message of that zygote about one session."""

    def zygote_gone(self, zygote: "ZygoteProcess") -> None:
        """It died: no further message will come, and the kernel is ending its sessions."""


@dataclass(frozen=True)
class Orders:
    """What a zygote is started with; `to_json` of the confinement and the runtime's options travel in it.

    `program` runs a module of ours under the runtime's own Python (none: under ours); `cold`: nothing is imported, each
    session is a fresh program that does.
    """

    runtime: str
    options: Mapping[str, str]
    confinement: Mapping[str, Any]
    log_level: str = "info"
    log_format: str = "text"
    program: Sequence[str] = field(default_factory=tuple)
    cold: bool = False

    def text(self) -> str:
        """One argument of its command line; holds no secret."""
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__})


class ZygoteProcess:
    """One zygote. Must be made in the host's main thread: the kernel ends it with the thread that started it."""

    def __init__(self, orders: Orders, listener: Listener) -> None:
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        mine.setblocking(False)
        program = list(orders.program) or [sys.executable, "-m"]
        command = [*program, "user_sessions.zygote", str(theirs.fileno()), str(os.getpid()), orders.text()]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=session_environment(os.environ, foreign=bool(orders.program)),
            )
        except OSError as error:
            mine.close()
            theirs.close()
            raise Unavailable(f"{command[0]} cannot be started: {error.strerror}.") from error
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
        self.importing = ""
        """The pack it imports right now; if it has ended, the one that ended it."""
        self.unforkable = ""
        """Why no session can be forked from it, if it said so."""
        self.error = ""
        self.ended = asyncio.Event()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def fork(self, spec: SessionSpec) -> None:
        """Order one session; the answers come through the listener. Raises Unavailable when it is gone."""
        text = json.dumps(spec.to_json()).encode()
        if len(text) > MESSAGE_BYTES:
            raise Unavailable("The session's paths are too long to hand over.")
        message = json.dumps({"op": "fork", "session_id": spec.session_id}).encode()
        try:
            with os.fdopen(os.memfd_create("session"), "w+b") as orders:
                orders.write(text)
                orders.seek(0)
                await self._send(message, orders.fileno())
        except OSError as error:
            raise Unavailable("The process that forks sessions just ended. Try again in a moment.") from error

    async def _send(self, message: bytes, file: int) -> None:
        """A datagram with an open file. asyncio knows no such call; full is the socket of a zygote that hangs only."""
        async with asyncio.timeout(SEND_TIMEOUT_S):
            while True:
                try:
                    socket.send_fds(self._socket, [message], [file])
                    return
                except BlockingIOError:
                    await asyncio.sleep(0.02)

    @property
    def exit_code(self) -> int | None:
        """How it ended, once `end` has returned."""
        return self._process.returncode

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
        match message["op"]:
            case "warm":
                self.warm = self.was_warm = True
                self.took_ms = int(message["took_ms"])
                failed = [node.pack for node in self.failed_nodes]
                log.info("zygote warm", pid=self.pid, took_ms=self.took_ms, threads=message["threads"], failed=failed)
                self.settled.set()
            case "importing":
                self.importing = str(message["pack"])
            case "failed_node":
                self.failed_nodes += failed_nodes([message])
            case "broken":
                self.error = str(message["error"])
            case "unforkable":
                self.error = self.unforkable = str(message["error"])
            case _:
                self._listener.told(self, message)

    def _died(self) -> None:
        self._close()
        self.error = self.error or "The process that forks sessions ended. logs/session-host.log says why."
        log.error("zygote ended", pid=self.pid, error=self.error)
        self._listener.zygote_gone(self)

    def _close(self) -> None:
        if not self.ended.is_set():
            self.ended.set()
            self.warm = False
            self._loop.remove_reader(self._socket)
            self._socket.close()
            self.settled.set()
